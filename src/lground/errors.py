"""The one error that a user's input raises, and what else becomes it."""


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
    return None
