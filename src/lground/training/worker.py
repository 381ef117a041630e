"""One of the processes that `lground.training.launch` starts: python -m lground.training.worker STAGE FOLDER OUT.

FOLDER holds the recipe and receives what went wrong, for the process that started this one to say it once.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

from lground.errors import input_error
from lground.files import atomic_file
from lground.training import load_recipe, train


def _end_with_parent() -> None:
    while os.read(0, 1):  # until the other end closes
        pass
    os.kill(os.getpid(), signal.SIGKILL)


def main(stage: str, folder: str, out: str, *flags: str) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        train(load_recipe(f"{folder}/recipe.yaml", stage), out, resume="--resume" in flags)
    except Exception as error:
        told = input_error(error)
        if told is None:
            raise
        with atomic_file(Path(folder) / f"error-{os.environ['RANK']}.txt") as part:
            part.write_text(str(told))
        time.sleep(60)  # until ended: a connection closed before that would make the others fail, too
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main(*sys.argv[1:])
