"""The `lground` command: one thin module per verb, and one place where errors become exit codes."""

import sys
from collections.abc import Sequence

import typer

from lground.errors import InputError, dead_worker

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
    except (InputError, typer.TyperException) as error:
        if "--debug" in arguments:
            raise
        message = str(error) if isinstance(error, InputError) else error.format_message()
        print("lground:", " ".join(message.split()), file=sys.stderr)
        return 2
    except BrokenPipeError:
        raise
    except OSError as error:  # what no command has its own words for
        if "--debug" in arguments or not error.filename:
            raise
        print(
            f"lground: {error.filename}: {error.strerror}; give another path, or mend this one",
            file=sys.stderr,
        )
        return 2
    except RuntimeError as error:
        if "--debug" in arguments or (told := dead_worker(error)) is None:
            raise
        print("lground:", told, file=sys.stderr)
        return 2
    except (KeyboardInterrupt, typer.Abort):  # outside of a command's own work
        print("lground: interrupted", file=sys.stderr)
        return 130


def run() -> None:
    sys.exit(main())


from lground.cli import commands  # noqa: E402, F401  (registers the verbs on `app`)
