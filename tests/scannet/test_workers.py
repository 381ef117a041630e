import os
import signal

import pytest

from lground.errors import InputError
from lground.scannet.workers import run_jobs


def square(number):
    return number * number


def die(number):
    os.kill(os.getpid(), signal.SIGKILL)


def stumble(number):
    raise InputError(f"{number}: no")


@pytest.mark.parametrize("workers", [1, 3, None])
def test_every_job_is_done_once(workers):
    assert dict(run_jobs(square, range(7), workers, "Squaring")) == {n: n * n for n in range(7)}
    assert list(run_jobs(square, [], workers, "Nothing")) == []


def test_a_worker_killed_for_memory_is_told_in_one_line():
    with pytest.raises(InputError, match="fewer --workers"):
        list(run_jobs(die, range(4), 2, "Dying"))


def test_an_error_of_the_work_reaches_the_caller():
    with pytest.raises(InputError, match="no"):
        list(run_jobs(stumble, range(4), 2, "Stumbling"))
