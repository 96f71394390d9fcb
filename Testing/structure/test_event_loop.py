"""Nothing in the window's thread waits: long work is a job of a child process, or polls while events are processed."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted([*ROOT.glob("Disc*/Disc*.py"), *ROOT.glob("Disc*/Disc*Widgets/**/*.py"),
                *ROOT.glob("Disc*/Disc*Lib/mrml.py"), *ROOT.glob("Disc*/Disc*Lib/mrml/**/*.py")])
WAITS = {"sleep", "communicate", "check_call", "check_output", "run_until_complete", "waitForFinished", "exec", "exec_"}
#: Methods of the Logic classes that compute; a panel starts their jobs instead.
LONG = {"segmentDiscs", "gradeDiscs", "importSegmentation", "carrySegmentation", "loadEchoSeries", "computeMaps",
        "measure", "loadPeople", "register", "loadRegistrations", "analyze", "run_study"}


def calls(file: Path):
    """Yield (function that holds the call, name called, line)."""
    for function in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(function, ast.FunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    yield function, node, node.func.attr


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_no_blocking_wait(file):
    for function, node, name in calls(file):
        if name in WAITS:
            others = {n.func.attr for n in ast.walk(function) if isinstance(n, ast.Call)
                      and isinstance(n.func, ast.Attribute)}
            assert "processEvents" in others and name == "sleep" and node.args[0].value <= 0.05, \
                f"{file.name}:{node.lineno} waits"


@pytest.mark.parametrize("file", [f for f in FILES if "Widgets" in str(f)], ids=lambda f: f.stem)
def test_panels_start_jobs_instead_of_computing(file):
    for _function, node, name in calls(file):
        on = ast.unparse(node.func.value)
        assert not (on.endswith("logic") and name in LONG), f"{file.name}:{node.lineno} computes in the window's thread"
        assert not (name == "run" and on == "job"), f"{file.name}:{node.lineno} runs a job itself"
