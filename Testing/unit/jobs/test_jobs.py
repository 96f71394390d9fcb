"""Jobs in a child process: results, errors in their own words, cancel in two seconds, no child left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from DiscRelaxometryLib.errors import Cancelled, SegmentationError
from DiscRelaxometryLib.jobs.jobs import ChildProcess, Job, end_children


def double(array, progressCallback):
    progressCallback(0.5, "half way")
    return array * 2


def refuse(progressCallback):
    raise SegmentationError("No disc was found.", anchor="no-spine-found")


class NotSent(Exception):
    """Takes two words and keeps one: pickle cannot make it again."""

    def __init__(self, first, second):
        super().__init__(first)


def fail_in_words_that_cannot_be_sent(progressCallback):
    raise NotSent("the scanner is on fire", 2)


def stubborn(progressCallback):
    """Start a grandchild, then work without ever reporting progress."""
    grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    progressCallback(0.1, str(grandchild.pid))
    time.sleep(60)


def die(progressCallback):
    print("the last words")
    sys.stdout.flush()
    os._exit(7)


def wait(child, seconds=180.0):
    end = time.monotonic() + seconds
    seen = []
    while not child.poll(lambda fraction, text: seen.append((fraction, text))):
        assert time.monotonic() < end, "the child does not end"
        time.sleep(0.02)
    return seen


def job(function, **arguments):
    return Job(f"{__name__}:{function.__name__}", arguments, "work")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie that init has not reaped is not alive.
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return True


def test_same_result_here_and_in_a_child():
    array = np.arange(6.0)
    here = job(double, array=array).run()
    child = ChildProcess(job(double, array=array))
    wait(child)
    np.testing.assert_array_equal(child.result(), here)
    assert not child.folder.exists()


def test_error_keeps_its_class_and_words():
    child = ChildProcess(job(refuse))
    wait(child)
    with pytest.raises(SegmentationError, match="No disc was found") as error:
        child.result()
    assert error.value.anchor == "no-spine-found"


def test_an_error_that_cannot_be_sent_is_told_in_its_words():
    child = ChildProcess(job(fail_in_words_that_cannot_be_sent))
    wait(child)
    with pytest.raises(RuntimeError, match="^NotSent: the scanner is on fire$"):
        child.result()


@pytest.mark.parametrize("fraction, elapsed, left", [(0.25, 30.0, 90.0), (0.9, 90.0, 10.0), (0.01, 30.0, None),
                                                     (0.5, 1.0, None)])
def test_the_time_left_goes_by_what_was_done_in_the_time_so_far(monkeypatch, fraction, elapsed, left):
    monkeypatch.setattr(ChildProcess, "progress", lambda self: (fraction, ""))
    monkeypatch.setattr("DiscRelaxometryLib.jobs.jobs.time", SimpleNamespace(monotonic=lambda: 1000.0 + elapsed))
    child = object.__new__(ChildProcess)
    child.started = 1000.0
    assert child.remaining() == (None if left is None else pytest.approx(left))


def test_a_dead_child_is_reported_with_its_log():
    child = ChildProcess(job(die))
    wait(child)
    with pytest.raises(RuntimeError, match="(?s)exit code 7.*the last words"):
        child.result()


@pytest.mark.skipif(os.name != "posix", reason="process groups are posix")
def test_cancel_ends_a_stubborn_child_and_its_own_children():
    child = ChildProcess(job(stubborn))
    while child.progress()[0] == 0:
        child.poll()
        time.sleep(0.02)
    grandchild = int(child.progress()[1])
    assert alive(grandchild)
    child.cancel()
    wait(child)
    with pytest.raises(Cancelled):
        child.result()
    time.sleep(0.1)
    assert not alive(child.process.pid) and not alive(grandchild)


@pytest.mark.skipif(os.name != "posix", reason="process groups are posix")
def test_a_killed_application_leaves_no_child():
    code = (f"import sys, time; sys.path[:0] = {sys.path!r}\n"
            "from DiscRelaxometryLib.jobs.jobs import ChildProcess, Job\n"
            f"child = ChildProcess(Job('{__name__}:stubborn'))\n"
            "print(child.process.pid, child.folder, flush=True); time.sleep(60)")
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        pid, folder = parent.stdout.readline().split()
        assert Path(folder).exists()
        os.kill(parent.pid, signal.SIGKILL)
    pid = int(pid)
    end = time.monotonic() + 120
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.1)
    assert not alive(pid)
    assert not Path(folder).exists()  # it holds images


def test_ending_all_children_is_safe_to_repeat():
    child = ChildProcess(job(stubborn))
    end_children()
    end_children()
    assert child.process.poll() is not None and not child.folder.exists()
