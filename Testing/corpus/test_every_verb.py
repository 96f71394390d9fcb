"""Every verb: a closed pipe, a terminal of few letters, and places that cannot be written are a sentence at most."""

import io
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from typer.main import get_command

from corpus.made_nifti import write_series
from corpus.made_studies import segment_stages, table, write_people, write_table
from DiscAtlasLib import load_atlas
from DiscRelaxometryLib.atomic import write_text
from DiscRelaxometryLib.grades import COLUMNS, ESTIMATED, EXPECTED
from DiscRelaxometryLib.image import read_image, write_image
from DiscRelaxometryLib.tables import Column, Table
from DiscStudyLib import run_study
from DiscStudyLib.cli.app import build_app
from DiscStudyLib.cli.main import main

#: Words of each verb, with what it reads and where it writes; all are quick.
WORDS = {
    "run": "{study} {out}", "validate": "{study} {out}", "status": "{study} {results}", "report": "{study} {results}",
    "review": "{study} --output {results} --reviewer AB",
    "simulate": "{out} --participants 1 --parametric", "import-spider": "{archive} {out}",
    "segment": "{image} {out}/labels.nii.gz", "grade": "{image} --output {out}/grades.tsv",
    "power": "{study} T1rho~age --effect 1 --region nucleus --output {results}",
    "maps": "{series} --output {out}", "export-dicom": "{out} --map T1rho={image}",
    "mixed": "{study} mean~age --output {results}", "agreement": "{means} {means} --output {out}/agreement.tsv"}
#: Verbs that write nothing.
READING = ("status",)


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """A study of four people with their regions, an image, a series and a table, with letters outside ASCII."""
    root = tmp_path_factory.mktemp("Größe")
    study = write_people(root / "study", people=4)
    write_table(study, table(4))
    for image in study.glob("sub-*/anat/*_T2w.nii.gz"):
        labels = _segment(read_image(image)).labels
        write_image(labels, image.with_name(image.name.replace("T2w", "dseg")))
    run_study(study, pipeline=segment_stages)
    results = study / "derivatives/disc-relaxometry"
    rows = [("participant_id", "level", "region", "map", "mean")]
    rows += [(f"sub-{n:02d}", level, "whole", "T1rho", str(80 + n * k % 7)) for n in range(1, 5)
             for k, level in enumerate(("L3-L4", "L4-L5", "L5-S1"), start=2)]
    (results / "group").mkdir(exist_ok=True)
    (results / "group/regions.tsv").write_text("\n".join(map("\t".join, rows)), encoding="utf-8")
    (root / "means.tsv").write_text("participant_id\tmean\tname\nsub-01\t1\tä\nsub-02\t2\tx\nsub-03\t3.5\tx\n",
                                    encoding="utf-8")
    archive, image = root / "spider", read_image(study / "sub-01/anat/sub-01_T2w.nii.gz")
    write_image(image, archive / "images/1_t2.mha")
    discs = _segment(image).labels
    write_image(discs.like(np.where(discs.array > 0, 201, 0).astype(np.uint8)), archive / "masks/1_t2.mha")
    grades = ("Patient,IVD label,Modic,UP endplate,LOW endplate,Spondylolisthesis,Disc herniation,Disc narrowing,"
              "Disc bulging,Pfirrman grade\n1,1,0,0,0,0,0,0,0,5\n")
    (archive / "radiological_gradings.csv").write_text(grades, encoding="utf-8")
    (archive / "overview.csv").write_text("new_file_name,subset,num_discs,sex\n1_t2,training,1,F\n", encoding="utf-8")
    shutil.copytree(results, root / "pristine")
    return {"study": study, "results": results, "pristine": root / "pristine", "archive": archive,
            "image": study / "sub-01/anat/sub-01_T2w.nii.gz",
            "series": write_series(root / "sub-01_MESE.nii.gz"), "means": root / "means.tsv", "out": root / "new"}


@pytest.fixture
def call(monkeypatch, tmp_path, material):
    """Call the command line in this process; return status, what was printed, and its message."""
    monkeypatch.setattr("DiscRelaxometryLib.discs.segment", _segment)
    monkeypatch.setattr("DiscRelaxometryLib.grades.grade_discs", _grade)
    monkeypatch.setattr("DiscStudyLib.virtual.write_virtual_study", _simulate)
    monkeypatch.setattr("DiscStudyLib.after.power.maps_in_atlas", lambda context: {"T1rho": {"sub-01": None}})
    monkeypatch.setattr("DiscStudyLib.after.power.observations", _observations)
    monkeypatch.setattr("DiscStatsLib.analysis.design_power", _power)

    def call(words, stdout=None, encoding="utf-8"):
        shown = stdout or open(tmp_path / "shown", "w", encoding=encoding)  # noqa: SIM115
        errors = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", shown)
        monkeypatch.setattr(sys, "stderr", errors)
        monkeypatch.setattr(sys, "argv", ["disc-relaxometry", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        shown.close()
        errors.flush()
        monkeypatch.undo()
        message = ended.value.code if isinstance(ended.value.code, str) else ""
        text = "" if stdout else (tmp_path / "shown").read_text(encoding)
        return 1 if message else ended.value.code or 0, text, message + errors.buffer.getvalue().decode(encoding)
    return call


def _segment(image, **options):
    """Stand in for the network: one disc in the middle."""
    labels = np.zeros(image.array.shape, np.uint8)
    labels[30:34, 10:30, 1:5] = 12
    labels = image.like(labels)
    return SimpleNamespace(found=True, labels=labels, confidence=labels, flags=["Größe"], quality=[])


def _grade(image, labels, engine):
    """Stand in for the grading network."""
    return Table("grades", COLUMNS, [{"level": "L4-L5", ESTIMATED: 3, EXPECTED: 2.9, "statement": "Größe"}])


def _observations(context, family, people):
    """Stand in for the maps of a study in atlas space."""
    atlas = load_atlas()
    return {"maps": {"T1rho": []}, "atlas_labels": atlas.labels, "regions": atlas.regions,
            "levels": list(atlas.levels), "participants": None}


def _power(maps, atlas_labels, participants, formula, term, planted, **options):
    """Stand in for the simulated studies."""
    assert planted.place.array.any()
    return Table("power", [Column("people"), Column("power", "1", "Größe")], [{"people": 4, "power": 0.5}])


def _simulate(folder, *values, progressCallback, **options):
    """Stand in for the simulation."""
    progressCallback(0.5, "Größe")
    write_text(folder / "README", "words " * 1000)


def words_of(verb: str, material: dict, **places) -> list[str]:
    return [verb, *(word.format(**{**material, **places}) for word in WORDS[verb].split())]


def quick_words(verb: str, material: dict, out) -> list[str]:
    """Return words that succeed, without long work."""
    return words_of(verb, material, out=out) + {"run": ["--dry-run"], "review": ["--list"]}.get(verb, [])


def test_all_verbs_are_here():
    assert set(WORDS) == set(get_command(build_app()).commands)


@pytest.mark.parametrize("verb", WORDS)
def test_a_pipe_that_is_closed_ends_quietly(verb, material, call, tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    status, _, message = call(quick_words(verb, material, tmp_path / "new"), os.fdopen(writing, "w"))
    assert status in (0, 1) and "Traceback" not in message and "Error" not in message, message


@pytest.mark.parametrize("verb", WORDS)
def test_a_terminal_that_lacks_letters_shows_others(verb, material, call, tmp_path):
    status, shown, message = call(quick_words(verb, material, tmp_path / "ä"), encoding="ascii")
    assert status == 0 and shown.isascii(), message


@pytest.fixture(params=["file in the way", "read-only", "full"])
def place(request, tmp_path, material):
    """A folder with results that cannot be written, and why."""
    folder = tmp_path / "place"
    if request.param == "file in the way":
        folder.write_text("")
        yield request.param, folder
        return
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a file system needs root")
    try:
        shutil.copytree(material["pristine"], folder / "results")
        if request.param == "full":
            with open(folder / "else", "wb", buffering=0) as stream, pytest.raises(OSError, match="No space"):
                while True:
                    stream.write(bytes(4096))
        else:
            subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        yield request.param, folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("verb", [v for v in WORDS if v not in READING])
def test_a_place_that_cannot_be_written_is_said(verb, place, material, call, monkeypatch):
    why, folder = place
    before = sorted(folder.rglob("*"))
    if why != "full":  # before the work
        monkeypatch.setattr(sys.modules[__name__], "_segment", lambda *a, **k: pytest.fail("worked first"))
    extra = ["--decide", "sub-01/L4-L5=accepted"] if verb == "review" else []
    status, _, message = call([*words_of(verb, material, out=folder / "out", results=folder / "results"), *extra])
    assert status == 1 and (message.startswith("Error: ") or verb == "validate"), message
    assert "Traceback" not in message and "Unexpected" not in message
    assert sorted(folder.rglob("*")) == before, set(folder.rglob("*")) ^ set(before)


@pytest.mark.parametrize("words", ["segment {image} {out}.xyz", "segment {image} {out}",
                                   "agreement {means} {means} --output {out}.csv"])
def test_an_ending_that_nobody_can_write_is_said(words, material, call, tmp_path):
    status, _, message = call([w.format(**{**material, "out": tmp_path / "x"}) for w in words.split()])
    assert status == 1 and message.startswith("Error: ") and "x" in message
    assert not list(tmp_path.glob("x*"))
