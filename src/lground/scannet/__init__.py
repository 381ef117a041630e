"""ScanNet: raw folders in, prepared scenes out; split lists; limited annotation; rare objects."""

from lground.scannet.bank import Bank, build_bank, open_bank
from lground.scannet.benchmark import Submission, check_submission, ground_truth_ids
from lground.scannet.limited import limit_annotation
from lground.scannet.preparation import Report, prepare
from lground.scannet.raw import read_raw_scene
from lground.scannet.splits import SPLITS, split_scenes
from lground.scannet.store import PreparedScene, list_scenes, open_scene
from lground.scannet.table import read_label_table

__all__ = [
    "SPLITS",
    "Bank",
    "PreparedScene",
    "Report",
    "Submission",
    "build_bank",
    "check_submission",
    "ground_truth_ids",
    "limit_annotation",
    "list_scenes",
    "open_bank",
    "open_scene",
    "prepare",
    "read_label_table",
    "read_raw_scene",
    "split_scenes",
]
