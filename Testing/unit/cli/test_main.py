"""The command line: help for each verb, plain errors, exit status, no traceback."""

import subprocess
import sys

import pytest
from support.command_line import command
from support.study_phantom import make_study

from DiscRelaxometryLib.errors import Cancelled
from DiscStudyLib.cli.main import main


def test_every_verb_and_option_has_help():
    from typer.main import get_command

    from DiscStudyLib.cli.app import build_app

    program = get_command(build_app())
    assert set(program.commands) == {"run", "validate", "status", "report", "review", "simulate", "segment",
                                     "grade", "maps", "import-spider", "export-dicom", "mixed", "agreement",
                                     "power"}
    for verb in program.commands.values():
        assert verb.help
        assert all(getattr(p, "help", "") for p in verb.params), verb.name


def test_validate_says_what_is_wrong_and_fails(tmp_path):
    study = make_study(tmp_path / "Studie ä", people=1, series=True)
    (study / "sub-01" / "anat" / "sub-01_T1rho.json").unlink()
    done = command("validate", study)
    assert done.returncode == 1
    assert "sub-01_T1rho.nii.gz" in done.stdout and "sidecar is missing" in done.stdout


def test_run_of_nothing_is_one_sentence(tmp_path):
    """In a process of its own, as a shell starts it."""
    code = f"import sys; sys.path[:0] = {sys.path!r}; from DiscStudyLib.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "run", str(tmp_path / "absent")], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: The study folder 'absent' does not exist") and "Traceback" not in done.stderr


def test_dry_run_lists_steps_and_writes_nothing(tmp_path):
    study = make_study(tmp_path / "study", people=8)
    done = command("run", study, "--dry-run", "--formula", "pfirrmann")
    assert done.returncode == 0, done.stderr
    assert "sub-02: segment, review, normalize" in done.stdout and "analysis-main" in done.stdout
    assert not (study / "derivatives").exists()


@pytest.mark.parametrize(("arguments", "words"), [
    (("export-dicom", "new"), "Say what to export"),
    (("export-dicom", "new", "--map", "x.nii.gz"), "write QUANTITY=FILE"),
    (("agreement", "a.tsv", "b.tsv"), "does not exist"),
    (("run", ".", "--errors", "normal"), "choose one of auto, exchangeable, symmetric"),
    (("run", ".", "--standard-errors", "white"), "choose one of classical, hc3"),
    (("run", ".", "--sensitivity", "field_T"), "is not a rule")])
def test_bad_calls_are_one_sentence(arguments, words):
    done = command(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ") and words in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("error", [KeyboardInterrupt, Cancelled])
def test_an_interrupted_command_says_what_stays(monkeypatch, capsys, error):
    def work():
        raise error

    app = pytest.importorskip("typer").Typer()
    app.command()(work)
    monkeypatch.setattr("DiscStudyLib.cli.app.build_app", lambda: app)
    monkeypatch.setattr("sys.argv", ["disc-relaxometry"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 130 and "Finished steps are kept" in capsys.readouterr().err
