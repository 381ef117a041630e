"""The one error that a user's input raises."""


class InputError(ValueError):
    """The input or the command line is wrong.

    The message is one line that names the file (or option), says what is wrong and what to do about it.
    Commands print it on stderr and end with exit code 2.
    """
