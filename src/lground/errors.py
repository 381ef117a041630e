"""The one error that a user's input raises, and what else becomes it."""


class InputError(ValueError):
    """The input or the command line is wrong.

    The message is one line that names the file (or option), says what is wrong and what to do about it.
    Commands print it on stderr and end with exit code 2.
    """


def input_error(error: Exception) -> InputError | None:
    """What to tell of an error: itself, or that torch found a process that loads scenes dead; None for any other.

    torch raises that one in whatever the main thread is doing at that moment.
    """
    if isinstance(error, InputError):
        return error
    if not isinstance(error, RuntimeError) or not str(error).startswith("DataLoader worker (pid"):
        return None
    return InputError(
        f"a process that loads scenes was ended ({str(error).splitlines()[0]}): most often memory, or shared "
        "memory (/dev/shm), ran out; use fewer workers, or smaller batches"
    )
