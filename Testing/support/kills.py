"""A process that ends in the middle of its writing: all files of the project get their names by ``os.replace``."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

_CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.truncate")
#: A process that has imported what runs need, and forks itself for each: to import takes longer than to run.
_FORKS = """
import os, sys
from pathlib import Path
sys.path[:0] = {path!r}
from DiscStudyLib import run_study
from support.kills import kill_before_change
from support.study_phantom import stages
for line in sys.stdin:
    number, study = line.rstrip().split(maxsplit=1)
    child = os.fork()
    if not child:
        try:
            kill_before_change(study, int(number))
            run_study(Path(study), pipeline=stages)
            os._exit(0)
        finally:
            os._exit(1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def killed_at_each_write(work: Callable[[], object]) -> Iterator[int]:
    """Do the work, ending it as its first, second, ... file would get its name; yield after each, until it ends well.

    The caller puts everything back where it was, or goes on from what is there.
    """
    replace, number, done = os.replace, 0, False
    while not done:
        left = [number]

        def counted(source, target, left=left, **options):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            replace(source, target, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "replace", counted)
            try:
                work()
                done = True
            except KeyboardInterrupt:
                pass
        if not done:
            yield number
            number += 1


def killed_runs(new_study: Callable[[], Path], every: int) -> Iterator[Path]:
    """Run the phantom's pipeline on new studies until one ends well; yield each study that a killed run has left.

    The first is killed (SIGKILL) before the `every`-th change of a file there, the next before the 2 * `every`-th, ...
    """
    code = _FORKS.format(path=[p for p in sys.path if p])
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as forks:
        number = every
        while True:
            study = new_study()
            print(number, study, file=forks.stdin, flush=True)
            code = forks.stdout.readline().strip()
            if code == "0":
                break
            assert code == str(-signal.SIGKILL), "the run failed before it was killed"
            yield study
            number += every
        forks.stdin.close()


def kill_before_change(folder: str, number: int) -> None:
    """Kill this process before its `number`-th writing, renaming or removing of a file in `folder`."""
    left = [number]

    def count(event: str, arguments: tuple) -> None:
        writes = event == "open" and (arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if (writes or event in _CHANGES) and str(arguments[0]).startswith(folder):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)
