"""SIGTERM, as schedulers send it before they end or requeue a job: training saves first, then ends."""

import signal
import threading
from types import FrameType

EXIT_CODE = 128 + signal.SIGTERM  # 143, what a shell reports for a process ended by SIGTERM


class Terminated(SystemExit):
    """Training was asked to end, has saved its state and ends with exit code 143."""

    def __init__(self) -> None:
        super().__init__(EXIT_CODE)


class StopSignal:
    """Within the block SIGTERM only sets `asked`; a handler exists in a program's main thread alone.

    A signal that was held back until here (see `start_processes`) arrives as the block begins.
    """

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._ask)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        return self

    def __exit__(self, *_) -> None:
        if hasattr(self, "_before"):
            signal.signal(signal.SIGTERM, self._before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
