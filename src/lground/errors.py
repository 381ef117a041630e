"""The one error that a user's input raises, and what else becomes it."""

import os


class InputError(ValueError):
    """The input or the command line is wrong.

    The message is one line that names the file (or option), says what is wrong and what to do about it.
    Commands print it on stderr and end with exit code 2.
    """


def input_error(error: Exception) -> InputError | None:
    """What to tell of an error that the input or the machine is the cause of; None for any other.

    It may be raised anywhere: torch raises that a loading process has died in whatever the main thread does then.
    """
    if isinstance(error, InputError):
        return error
    if isinstance(error, OSError) and error.filename:  # for which nobody has words of its own
        return InputError(f"{error.filename}: {error.strerror}; give another path, or mend this one")
    if not isinstance(error, RuntimeError):
        return None
    what = str(error).partition("\n")[0]
    if what.startswith("DataLoader worker (pid"):
        return InputError(
            f"a process that loads scenes was ended ({what}): most often memory, or shared memory (/dev/shm), ran "
            "out; use fewer workers, or smaller batches"
        )
    if what.startswith("CUDA out of memory") or "can't allocate memory" in what:
        return InputError(
            f"memory ran out ({'. '.join(what.split('. ')[:2])}): lower data.batch_size or data.point_limit, or, on "
            "GPUs, use precision=bf16"
        )
    if "EADDRINUSE" in what:
        port = os.environ.get("MASTER_PORT", "")
        return InputError(
            f"MASTER_PORT={port}: where the processes of a run meet is in use; set it to another port on every node"
        )
    return None
