"""What a scan is, and reading and writing it in the formats people have."""

from lground.scans.reading import READERS, UNITS, read_scan
from lground.scans.scan import Scan, check_scan
from lground.scans.writing import write_scan

__all__ = ["READERS", "UNITS", "Scan", "check_scan", "read_scan", "write_scan"]
