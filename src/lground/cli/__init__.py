"""The `lground` command: one thin module per verb, and one place where errors become exit codes."""

import sys
from collections.abc import Sequence

import typer

from lground.errors import input_error

app = typer.Typer(
    name="lground",
    help="Language-grounded semantic segmentation of indoor 3D scans.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def _options(debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error.")) -> None:
    """Language-grounded semantic segmentation of indoor 3D scans."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code (0 done, 2 wrong input, 130 interrupted)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if "--debug" in arguments:  # accepted anywhere on the line
        arguments = ["--debug", *(a for a in arguments if a != "--debug")]
    try:
        code = app(args=arguments, prog_name="lground", standalone_mode=False) or 0
        if code == 130:  # Typer turns an interrupt into this code and says nothing
            print("lground: interrupted", file=sys.stderr)
        return code
    except (KeyboardInterrupt, typer.Abort):  # outside of a command's own work
        print("lground: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        told = None if "--debug" in arguments else _told(error)
        if told is None:
            raise
        print("lground:", " ".join(told.split()), file=sys.stderr)
        return 2


def _told(error: Exception) -> str | None:
    """What a user is told of an error that the input, the command line or the machine is the cause of, else None."""
    if isinstance(error, typer.TyperException):
        return error.format_message()
    known = input_error(error)
    return known and str(known)


def run() -> None:
    sys.exit(main())


from lground.cli import commands  # noqa: E402, F401  (registers the verbs on `app`)
