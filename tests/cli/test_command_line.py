"""The command line as a whole; each verb's own behaviour is tested beside its room."""

import signal
import subprocess
import sys
import time

import pytest
import typer

from lground import cli
from lground.cli import app, main

VERBS = """demo synth prepare anchors pretrain finetune instances
compare evaluate submit segment query convert doctor""".split()


def test_every_verb_has_help_that_says_what_it_does(capsys):
    assert main(["--help"]) == 0
    overview = capsys.readouterr().out
    for verb in VERBS:
        assert f"\n  {verb} " in overview
        assert main([verb, "--help"]) == 0
        assert f"lground {verb}" in capsys.readouterr().out


def test_verbs_are_listed_in_the_order_a_user_meets_them():
    assert [command.name for command in app.registered_commands] == VERBS


@pytest.mark.parametrize(
    "line", [["nope"], ["segment"], ["synth", "out", "--train", "many"], ["segment", "--nope"]]
)
def test_a_wrong_command_line_is_one_line_and_code_2(capsys, line):
    assert main(line) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and captured.err.startswith("lground: ")


def test_debug_shows_the_traceback(capsys):
    from lground.errors import InputError

    with pytest.raises(InputError):
        main(["segment", "missing.ply", "--model", "missing", "--debug"])


def test_doctor_names_the_device_and_what_is_installed(capsys):
    import torch

    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert torch.__version__ in out and "device:" in out and "kernels:" in out


def test_doctor_says_what_to_install(capsys, monkeypatch):
    from lground.cli import doctor

    monkeypatch.setitem(doctor.EXTRAS, "text", (("a-package-nobody-has",), "text encoders"))
    assert main(["doctor"]) == 0
    assert "missing a-package-nobody-has: pip install 'lground[text]'" in capsys.readouterr().out


def test_an_interrupt_ends_with_130_and_leaves_nothing(tmp_path):
    out = tmp_path / "rooms"
    command = [sys.executable, "-m", "lground", "synth", str(out), "--train", "40", "--workers", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.iterdir()):  # until the work has begun
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130 and "interrupted" in error
    assert list(tmp_path.iterdir()) == []


def failing(monkeypatch, error: BaseException) -> None:
    """Let the next command end with an error, wherever in it."""

    def app(**_):
        raise error

    monkeypatch.setattr(cli, "app", app)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), typer.Abort()])
def test_an_abort_is_an_interrupt(error, monkeypatch, capsys):
    failing(monkeypatch, error)
    assert main(["doctor"]) == 130 and capsys.readouterr().err == "lground: interrupted\n"


@pytest.mark.parametrize(
    "error", [RuntimeError("a bug"), OSError("without a file"), BrokenPipeError(32, "gone")]
)
def test_what_no_user_can_mend_keeps_its_traceback(error, monkeypatch):
    failing(monkeypatch, error)
    with pytest.raises(type(error)):
        main(["doctor"])
