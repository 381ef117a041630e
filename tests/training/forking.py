"""Runs `lground` lines in forked processes, each ended by a signal: without the seconds that importing takes.

Reads requests as JSON lines: {"line": [...], "signal": number or null, "after": seconds, "once": path or null};
the signal goes to the whole process group, `after` seconds from when `once` exists. Answers with {"code", "err"}; null
ends it.
"""

import json
import os
import signal
import sys
import tempfile
import time

import torch
import torch.utils.tensorboard

from lground.cli import main
from lground.training import trainer  # noqa: F401


def child(line: list[str], errors) -> None:
    os.setpgid(0, 0)
    for stream in (1, 2):
        os.dup2(errors.fileno(), stream)
    torch.set_num_threads(1)
    code = 1
    try:
        code = main(line)
    except SystemExit as end:
        code = end.code
    finally:
        sys.stderr.flush()
        os._exit(code)


def answer(request: dict) -> dict:
    with tempfile.TemporaryFile("w+") as errors:
        pid = os.fork()
        if pid == 0:
            child(request["line"], errors)
        while request["once"] and not os.path.exists(request["once"]):
            time.sleep(0.005)
        if request["signal"]:
            time.sleep(request["after"])
            try:
                os.killpg(pid, request["signal"])
            except ProcessLookupError:
                os.kill(pid, request["signal"])  # it has no group yet
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        errors.seek(0)
        return {"code": code, "err": errors.read()}


signal.signal(signal.SIGTERM, signal.SIG_DFL)
for text in sys.stdin:
    request = json.loads(text)
    if request is None:
        break
    print(json.dumps(answer(request)), flush=True)
