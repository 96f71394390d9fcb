"""The benchmarks: a program that fails is not timed."""

import sys

import pytest
from support import ROOT

sys.path.insert(0, str(ROOT / "Testing" / "benchmarks"))
import bench_study


def test_a_program_that_fails_is_not_timed():
    good, bad = ([sys.executable, "-c", code] for code in ("print('RESULT{\"seconds\": 1}')", "raise SystemExit('no')"))
    assert bench_study.Tree(good).result == {"seconds": 1} and bench_study.side_by_side([good, good]) > 0
    with pytest.raises(SystemExit, match="no"):
        bench_study.Tree(bad)
    with pytest.raises(SystemExit, match="failed"):
        bench_study.side_by_side([bad, good])
