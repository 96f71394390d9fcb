"""The benchmarks: what their results hold is what they write, and a program that fails is not timed."""

import ast
import json
import re
import sys

import pytest
from support import ROOT

from structure.test_extension import tracked

sys.path.insert(0, str(ROOT / "Testing" / "benchmarks"))
import bench_study
import common

#: Kept for what no run gives any more: the folds of weights 2.0.0 are gone.
ARCHIVED = {"segmentation_four_folds"}


def test_every_kept_aim_and_table_is_one_that_its_benchmark_writes():
    """What no script writes any more, or somebody wrote by hand, would stay for ever."""
    scripts = [path.read_text(encoding="utf-8") for path in tracked("Testing/benchmarks/*.py", "Testing/tools/*.py")]
    for path in (p for p in tracked("Testing/benchmarks/results/*.json") if p.stem not in ARCHIVED):
        content = json.loads(path.read_text(encoding="utf-8"))
        calls = [node for script in scripts if f'Results("{path.stem}"' in script
                 for node in ast.walk(ast.parse(script)) if isinstance(node, ast.Call) and node.args]
        for what, kept in (("Aim", [row[0] for row in content.get("aims", [])]), ("table", content["tables"])):
            written = "|".join(wording(call.args[0]) for call in calls
                               if what in (getattr(call.func, "id", ""), getattr(call.func, "attr", "")))
            assert not [words for words in kept if not re.fullmatch(written, words)], f"{path.stem}, {what}"


def wording(node: ast.expr) -> str:
    """Return a pattern of the texts that an expression may have."""
    if isinstance(node, ast.IfExp):
        return f"{wording(node.body)}|{wording(node.orelse)}"
    return "".join(re.escape(part.value) if isinstance(part, ast.Constant) else ".+"
                   for part in getattr(node, "values", [node]))


def test_a_program_that_fails_is_not_timed():
    good, bad = ([sys.executable, "-c", code] for code in ("print('RESULT{\"seconds\": 1}')", "raise SystemExit('no')"))
    assert bench_study.Tree(good).result == {"seconds": 1} and bench_study.side_by_side([good, good]) > 0
    with pytest.raises(SystemExit, match="no"):
        bench_study.Tree(bad)
    with pytest.raises(SystemExit, match="failed"):
        bench_study.side_by_side([bad, good])


def test_aims_of_one_run_stand_together(tmp_path, monkeypatch):
    """A row that says "the same" follows the one that it goes on from."""
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    results = common.Results("bench")
    for figures in (("speed", "memory"), ("Dice",), ("speed", "the same, CPU")):
        results.aims(*(common.Aim(figure, 1, at_most=2) for figure in figures))
    assert [row[0] for row in results.content["aims"]] == ["memory", "Dice", "speed", "the same, CPU"]
