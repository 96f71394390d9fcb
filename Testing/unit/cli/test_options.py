"""Every option of every verb reaches the function it is for: recorded calls, values other than the defaults."""

import sys
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.recorder import Recorder

pytest.importorskip("typer")
from typer.main import get_command

import DiscRelaxometryLib.discs
import DiscRelaxometryLib.echo
import DiscRelaxometryLib.fit
import DiscRelaxometryLib.grades
import DiscRelaxometryLib.image
import DiscRelaxometryLib.measure
import DiscStudyLib.after
import DiscStudyLib.folder
import DiscStudyLib.review
import DiscStudyLib.steps
import DiscStudyLib.virtual
from DiscRelaxometryLib.errors import DiscRelaxometryError
from DiscRelaxometryLib.tables import Table
from DiscStudyLib.cli.app import VERBS, build_app
from DiscStudyLib.cli.main import sentence, spread
from DiscStudyLib.cli.options import field_help, numbers, require_place
from DiscStudyLib.folder import CHOICES, Settings

LABEL = "--participant-label"
#: Settings whose other value is no choice of a list and no number.
OTHER = {"formula": "age", "contrast": "C(sex)", "maps": "T2", "levels": "L4-L5,L5-S1", "analysis": "second",
         "sensitivity": "age > 40", "session": "ses-02", "template": "build", "pooled": True,
         "variance_groups": "sex", "groups": "age > 40"}


def other_settings() -> dict:
    """Return a value other than the default for each setting that is an option."""
    found = {}
    for field in fields(Settings):
        if field.name == "threads":
            continue
        if field.name in CHOICES:
            found[field.name] = next(c for c in CHOICES[field.name] if c != field.default)
        elif field.name in OTHER:
            found[field.name] = OTHER[field.name]
        else:
            found[field.name] = field.default * 2 if field.default else 3
    return found


def option(name: str) -> str:
    return "--" + name.replace("_", "-")


def call(*words) -> None:
    """Call the command line in this process, as main does."""
    get_command(build_app())(spread([str(w) for w in words]), standalone_mode=False)


@pytest.fixture
def recorder(monkeypatch):
    return lambda module, name, result=None: Recorder(monkeypatch, module, name, result)


RUN = SimpleNamespace(findings=[], outcomes=[], failed=[], missing={}, report=None,
                      timings=lambda: Table("timings", [("step",)]))


def all_words(settings: dict) -> list:
    return [w for name, value in settings.items() for w in ([option(name)] if value is True else [option(name), value])]


def test_run_hands_on_every_option(recorder):
    from DiscStudyLib.engine import Cluster

    done, settings = recorder(DiscStudyLib.steps, "run_study", RUN), other_settings()
    call("run", "study", "out", "participant", LABEL, "01", "02", "--n-procs", 3, "--scheduler", "tcp://x", "--memory",
         2.5, "--gpu", "--verify", *all_words(settings))
    done.check(path=Path("study"), output=Path("out"), level="participant", people=["01", "02"], processes=3,
               cluster=Cluster("tcp://x", 2.5, {"GPU": 1}), verify=True, **settings,
               unused=("pipeline", "progressCallback"))


def test_dry_run_plans_with_every_option(recorder, capsys):
    done, settings = recorder(DiscStudyLib.steps, "plan_study", RUN), other_settings()
    call("run", "study", "out", LABEL, "01", "--verify", "--dry-run", *all_words(settings))
    done.check(path=Path("study"), output=Path("out"), people=["01"], verify=True, **settings, unused=("pipeline",))
    assert "nothing was written" in capsys.readouterr().out


@pytest.mark.parametrize("words", [("study", "group"), ("study", "out", "group")])
def test_level_may_follow_the_study(recorder, words):
    done = recorder(DiscStudyLib.steps, "run_study", RUN)
    call("run", *words)
    assert done.given["level"] == "group"
    assert done.given["output"] == (Path("out") if len(words) == 3 else None)


def test_validate_hands_on_every_option(recorder):
    made, settings = recorder(DiscStudyLib.folder, "Study"), other_settings()
    del settings["variance_groups"], settings["change"]  # not beside HC3 and pooled levels
    done = recorder(DiscStudyLib.folder, "validate", [])
    call("validate", "study", "out", LABEL, "01", "02", "--quick", *all_words(settings))
    made.check(root=Path("study"), session=settings["session"], output=Path("out"), only=("01", "02"))
    wanted = DiscStudyLib.folder.make_settings(**settings)
    done.check(study=None, settings=wanted, read_images=False, unused=("trusted",))


def test_status_and_report_hand_on_every_option(recorder):
    done = recorder(DiscStudyLib.steps, "plan_again", RUN)
    call("status", "study", "out", "--session", "ses-02")
    done.check(path=Path("study"), output=Path("out"), session="ses-02")
    done = recorder(DiscStudyLib.steps, "make_report", Path("report.html"))
    call("report", "study", "out", "--session", "ses-02")
    done.check(path=Path("study"), output=Path("out"), session="ses-02", unused=("progressCallback",))


def test_simulate_hands_on_every_option(recorder, tmp_path):
    done = recorder(DiscStudyLib.virtual, "write_virtual_study")
    call("simulate", tmp_path / "new", "--participants", 5, "--seed", 9, "--sites", 2, "--null", "--parametric",
         "--with-labels")
    done.check(folder=tmp_path / "new", people=5, seed=9, sites=2, null=True, real=(), with_labels=True,
               unused=("progressCallback", "effects", "truth_maps",
                       "spacing"))


def test_segment_hands_on_every_option(recorder, monkeypatch, tmp_path, capsys):
    result = SimpleNamespace(found=True, labels="labels", confidence="confidence", flags=())
    image = SimpleNamespace(notes=["from the header"])
    read = recorder(DiscRelaxometryLib.image, "read_image", image)
    done = recorder(DiscRelaxometryLib.discs, "segment", result)
    recorder(DiscRelaxometryLib.measure, "measure_discs", Table("discs", [("level",)]))
    written = {}
    monkeypatch.setattr(DiscRelaxometryLib.image, "write_image", lambda image, path: written.update({image: path}))
    call("segment", "t2w.nii.gz", tmp_path / "labels.nii.gz", "--confidence", tmp_path / "c.nrrd", "--engine", "onnx")
    assert read.given["path"] == Path("t2w.nii.gz") and "from the header" in capsys.readouterr().out
    assert {n: done.given[n] for n in ("image", "engine")} == {"image": image, "engine": "onnx"}
    assert written == {"labels": tmp_path / "labels.nii.gz", "confidence": tmp_path / "c.nrrd"}


def test_import_hands_on_both_folders(recorder, tmp_path):
    done = recorder(DiscStudyLib.folder, "import_spider", [])
    call("import-spider", tmp_path / "archive", tmp_path / "study")
    done.check(archive=tmp_path / "archive", target=tmp_path / "study", unused=("progressCallback",))


def test_grade_hands_on_every_option(recorder, monkeypatch, tmp_path):
    rows = [{"level": "L5-S1", "pfirrmann_estimated": 3, "statement": None}]
    done = recorder(DiscRelaxometryLib.grades, "grade_discs",
                    Table("grades", [("level",), ("pfirrmann_estimated",), ("statement",)], rows))
    segmented = recorder(DiscRelaxometryLib.discs, "segment", SimpleNamespace(found=True, labels="labels", flags=()))
    monkeypatch.setattr(DiscRelaxometryLib.image, "read_image", str)
    monkeypatch.setattr(DiscRelaxometryLib.discs, "project_labels", lambda image: (image, []))
    call("grade", "t2w.nii.gz", "--engine", "onnx", "--output", tmp_path / "grades.tsv")
    assert {n: segmented.given[n] for n in ("image", "engine")} == {"image": "t2w.nii.gz", "engine": "onnx"}
    done.check(image="t2w.nii.gz", labels="labels", engine="onnx",
               unused=("device", "threads", "model", "progressCallback"))
    assert (tmp_path / "grades.tsv").read_text().splitlines()[1] == "L5-S1\t3\tn/a"
    call("grade", "t2w.nii.gz", "--labels", "dseg.nii.gz")
    assert done.given["labels"] == "dseg.nii.gz"
    # Nothing graded is a failure, with the table printed.
    done.result.rows[0]["pfirrmann_estimated"] = None
    with pytest.raises(SystemExit):
        call("grade", "t2w.nii.gz", "--labels", "dseg.nii.gz")


def test_maps_hand_on_every_option(recorder, tmp_path):
    from DiscRelaxometryLib.fit import FitOptions

    read = recorder(DiscRelaxometryLib.echo, "read_echo_series", SimpleNamespace(kind="T2"))
    done = recorder(DiscRelaxometryLib.fit, "map_series", SimpleNamespace(fit=SimpleNamespace(images=lambda: {}),
                                                                            notes=[]))
    call("maps", "a.nii.gz", "b.nii.gz", "--kind", "t2", "--times", "1,2;3 4,", "--estimator", "rician", "--align",
         "off", "--output", tmp_path / "out")
    assert (read.given["path"], read.given["times_ms"]) == ([Path("a.nii.gz"), Path("b.nii.gz")], [1, 2, 3, 4])
    done.check(series=read.result, options=FitOptions(estimator="rician"), align="off",
               unused=("mask", "progressCallback"))
    call("maps", "a.nii.gz", "--model", "epg", "--output", tmp_path / "out")
    assert done.given["options"] == FitOptions(model="epg")
    with pytest.raises(DiscRelaxometryError, match="The series is T2 .* says T1rho"):
        call("maps", "a.nii.gz", "--kind", "T1rho", "--output", tmp_path / "out")


def test_export_hands_on_every_option(recorder, tmp_path):
    done = recorder(DiscStudyLib.after, "export_people", [])
    call("export-dicom", tmp_path, "--study", "study", LABEL, "01", "02", "--source", "dicom", "--output", "out",
         "--session", "ses-02")
    done.check(path=Path("study"), folder=tmp_path, people=["01", "02"], source=Path("dicom"), output=Path("out"),
               session="ses-02", unused=("progressCallback",))
    done = recorder(DiscStudyLib.after, "export_files", [])
    call("export-dicom", tmp_path, "--map", "T2=a.nii", "--map", "T1rho=b.nii", "--labels", "l.nii", "--source",
         "dicom", "--subject", "p1", "--algorithm", "net")
    done.check(folder=tmp_path, maps=["T2=a.nii", "T1rho=b.nii"], labels=Path("l.nii"), source=Path("dicom"),
               subject="p1", algorithm="net")


def test_mixed_and_agreement_hand_on_every_option(recorder, tmp_path):
    fit = SimpleNamespace(fixed=Table("f", [("term",)]), variances=Table("v", [("sd",)]), n=1, people=1, icc=0.5,
                          notes=[])
    done = recorder(DiscStudyLib.after, "mixed_model", (fit, []))
    call("mixed", "study", "mean ~ age", "--map", "T2", "--region", "nucleus", "--table", "discs", "--slope", "age",
         "--name", "second", "--output", "out", "--session", "ses-02")
    done.check(path=Path("study"), formula="mean ~ age", map="T2", region="nucleus", table="discs", slope="age",
               name="second", output=Path("out"), session="ses-02")
    done = recorder(DiscStudyLib.after, "compare_tables", (Table("a", [("value",)]), []))
    call("agreement", "a.tsv", "b.tsv", "--value", "sd", "--on", "level, region", "--map", "T2", "--region", "nucleus",
         "--unit", "ms", "--output", tmp_path / "out.tsv")
    done.check(first=Path("a.tsv"), second=Path("b.tsv"), value="sd", on=("level", "region"), unit="ms", map="T2",
               region="nucleus")
    assert (tmp_path / "out.tsv").exists()


def test_review_hands_on_every_option(recorder):
    """What ``--compare``, ``--decide`` and ``--reason`` do is tried in test_review.py."""
    seen = []
    reviewing = SimpleNamespace(overview=lambda: [])
    made = recorder(DiscStudyLib.review, "Session", reviewing)
    call("review", "study", "--output", "out", "--session", "ses-02", "--reviewer", "AB", "--list")
    made.check(path=Path("study"), output=Path("out"), session="ses-02", reviewer="AB")
    page = recorder(DiscStudyLib.review, "ReviewPage",
                    nullcontext(SimpleNamespace(address="x", serve=seen.append, stop=lambda: seen.append("stopped"))))
    for more in ("--browser", "--no-browser"):
        call("review", "study", "--port", 9000, more)
        page.check(session=reviewing, port=9000, views=None)
    assert seen == [True, False]
    views = SimpleNamespace(serve=lambda beside: beside())
    made = recorder(DiscStudyLib.review, "SlicerViews", views)
    call("review", "study", "--port", 9000, "--viewer")
    made.check(session=reviewing, unused=("port",))
    page.check(session=reviewing, port=9000, views=views)
    assert seen == [True, False, True, "stopped"]


def test_power_hands_on_every_option(recorder, capsys):
    table = Table("power", [("people",)], notes=["Left out for a missing age: sub-03."])
    done = recorder(DiscStudyLib.after, "study_power", (table, Path("power_T2.tsv")))
    call("power", "study", "T2 ~ age", "--effect", -1.5, "--map", "T2", "--region", "nucleus", "--levels",
         "L4-L5,L5-S1", "--sizes", "30,60", "--sets", 7, "--output", "out", "--session", "ses-02")
    done.check(path=Path("study"), formula="T2 ~ age", effect=-1.5, map="T2", region="nucleus",
               levels=("L4-L5", "L5-S1"), sizes=(30.0, 60.0), sets=7, output=Path("out"), session="ses-02",
               unused=("progressCallback",))
    assert "Left out for a missing age: sub-03." in capsys.readouterr().out


def test_each_verb_is_recorded_here():
    """A verb or option that this file does not give a value is one whose loss nobody would notice."""
    text = Path(__file__).read_text(encoding="utf-8")
    settings = {f.name for f in fields(Settings)}
    for verb in VERBS:
        assert f'"{verb.__name__.replace("_", "-")}"' in text
        for parameter in get_command(build_app()).commands[verb.__name__.replace("_", "-")].params:
            assert parameter.name in settings or not parameter.opts[0].startswith("--") or \
                parameter.opts[0] in text, (verb.__name__, parameter.name)


@pytest.mark.parametrize(("words", "expected"), [
    (["run", "s", LABEL, "01", "02", "--gpu", "x"], ["run", "s", LABEL, "01", LABEL, "02", "--gpu", "x"]),
    (["run", "s", LABEL, "01", LABEL, "02"], ["run", "s", LABEL, "01", LABEL, "02"]),
    (["run", "s", f"{LABEL}=01", "out"], ["run", "s", f"{LABEL}=01", "out"]),
])
def test_labels_follow_each_other_as_in_bids_apps(words, expected):
    assert spread(words) == expected


@pytest.mark.parametrize("text", ["1,two", "1..2", "10ms"])
def test_numbers_that_are_none(text):
    with pytest.raises(DiscRelaxometryError, match="--times"):
        numbers(text, "--times")


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "x.tsv", tmp_path / "x.doc", tmp_path / "folder.tsv"):
        (tmp_path / "folder.tsv").mkdir(exist_ok=True)
        with pytest.raises(DiscRelaxometryError, match=path.name if path.parent == tmp_path else "file"):
            require_place(path, ".tsv")
    require_place(tmp_path / "new" / "x.tsv", ".tsv")


@pytest.mark.parametrize("verb, given", [
    ("segment", {"image": "a.nii.gz", "labels": "a.nii.gz"}),
    ("segment", {"image": "a.nii.gz", "labels": "d.nii.gz", "confidence": "d.nii.gz"}),
    ("segment", {"image": "a.nii.gz", "labels": "./b/../link.nii.gz"}),
    ("grade", {"image": "a.nii.gz", "output": "a.tsv"}),  # a table's sidecar has the name of the image's
    ("agreement", {"first": "a.tsv", "second": "c.tsv", "output": "c.tsv"}),
    ("maps", {"series": ["a.nii.gz", "b/T2.nii.gz"], "output": "b"})])
def test_nothing_that_is_read_is_written_over(tmp_path, verb, given):
    from DiscStudyLib.cli import app, results

    def place(name):
        return [place(n) for n in name] if isinstance(name, list) else tmp_path / name

    (tmp_path / "b").mkdir()
    for name in ("a.nii.gz", "a.json", "a.tsv", "c.tsv", "b/T2.nii.gz"):
        (tmp_path / name).write_text(name)
    (tmp_path / "link.nii.gz").symlink_to("a.nii.gz")
    before = {f: f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()}
    with pytest.raises(DiscRelaxometryError, match="would take the place of"):
        (getattr(app, verb, None) or getattr(results, verb))(**{k: place(v) for k, v in given.items()})
    assert {f: f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()} == before


@pytest.mark.parametrize(("error", "words"), [
    (OSError(28, "No space left on device", "a.nii"), "disk is full"),
    (PermissionError(13, "Permission denied", "a.nii"), "Permission denied.*a.nii"),
    (MemoryError(), "--n-procs"), (RuntimeError("line 1\nITK ERROR: bad"), "Unexpected RuntimeError: ITK ERROR: bad"),
])
def test_errors_of_system_and_libraries_are_sentences(error, words):
    import re

    assert re.search(words, sentence(error)) and "\n" not in sentence(error)


def test_a_terminal_without_a_letter_is_no_error(monkeypatch, tmp_path):
    import os
    import subprocess

    code = f"import sys; sys.path[:0] = {sys.path!r}; from DiscStudyLib.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "status", str(tmp_path / "Größe")], capture_output=True,
                          env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 1 and b"Traceback" not in done.stderr


def test_every_setting_is_explained_without_marks():
    words = field_help(Settings)
    assert list(words) == [f.name for f in fields(Settings)]
    assert words["sensitivity"].startswith("Rule on a column of the") and words["sensitivity"].endswith("means none.")
    assert not any(mark in text for text in words.values() for mark in "#`\n")
