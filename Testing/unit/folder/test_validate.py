"""The validate verb names file, person and remedy for every kind of bad input, before anything runs."""

import json
import os
import shutil

import numpy as np
import pytest
import SimpleITK as sitk
from support.study_phantom import GEOMETRY, make_study, stages, write_series

from DiscRelaxometryLib.errors import StudyError
from DiscRelaxometryLib.image import Geometry, Image, write_image
from DiscStudyLib import run_study
from DiscStudyLib.folder.settings import make_settings
from DiscStudyLib.folder.study import Study, level_columns
from DiscStudyLib.folder.validate import validate


@pytest.fixture
def study(tmp_path):
    return make_study(tmp_path / "Größe und Länge", series=True)


def find(study, words: str, severity="error", **settings):
    """Return the one finding whose problem contains `words`; fail with the whole list otherwise."""
    found = validate(Study(study), make_settings(**settings))
    hits = [f for f in found if words in f.problem and f.severity == severity]
    assert len(hits) == 1, "\n".join(map(str, found))
    assert hits[0].remedy
    return hits[0]


def anat(study, person, suffix):
    return study / person / "anat" / f"{person}_{suffix}"


def test_good_study_has_no_findings(tmp_path):
    study = Study(make_study(tmp_path / "study", people=12, series=True))
    settings = make_settings(formula="T1rho ~ pfirrmann + age + C(sex)", levels=("L4-L5", "L5-S1"))
    assert validate(study, settings) == []


def test_missing_sidecar(study):
    anat(study, "sub-02", "T1rho.json").unlink()
    finding = find(study, "sidecar is missing")
    assert finding.person == "sub-02" and finding.file == "sub-02/anat/sub-02_T1rho.nii.gz"
    assert "sub-02_T1rho.json" in finding.remedy and "SpinLockTime" in finding.remedy


def test_wrong_unit_of_times(study):
    anat(study, "sub-01", "T1rho.json").write_text('{"SpinLockTime": [0, 10, 40, 80]}')
    assert find(study, "in ms, where BIDS wants seconds").person == "sub-01"


def test_wrong_number_of_times(study):
    anat(study, "sub-01", "T1rho.json").write_text('{"SpinLockTime": [0, 0.01, 0.04]}')
    find(study, "4 volumes but 3 times of the T1rho map")


def test_a_plain_nifti_under_a_compressed_name_is_what_it_is(study):
    packed, plain = anat(study, "sub-01", "T2w.nii.gz"), study / "plain.nii"
    sitk.WriteImage(sitk.ReadImage(str(packed)), str(plain))
    plain.replace(packed)
    assert validate(Study(study)) == [] and validate(Study(study), read_images=False) == []
    packed.write_bytes(packed.read_bytes()[:-5000])
    find(study, "truncated")


def test_a_compressed_nifti_under_a_plain_name_is_what_it_is(study):
    packed = anat(study, "sub-01", "T2w.nii.gz")
    packed.rename(packed.with_suffix(""))
    assert validate(Study(study)) == [] and validate(Study(study), read_images=False) == []


def test_wrong_unit_of_lengths(study):
    image = sitk.ReadImage(str(anat(study, "sub-01", "T2w.nii.gz")))
    image.SetSpacing([s * 1e-3 for s in GEOMETRY.spacing])
    sitk.WriteImage(image, str(anat(study, "sub-01", "T2w.nii.gz")))
    find(study, "is not in mm")


def test_wrong_person_id(study):
    os.rename(anat(study, "sub-02", "T2w.nii.gz"), study / "sub-02/anat/sub-03_T2w.nii.gz")
    finding = find(study, "belongs to 'sub-03'")
    assert finding.person == "sub-02" and finding.file.endswith("sub-03_T2w.nii.gz")


def test_of_two_volumes_the_one_without_further_entities_is_used_and_the_other_is_named(study):
    plain, other = anat(study, "sub-01", "T2w.nii.gz"), anat(study, "sub-01", "acq-SPACE_T2w.nii.gz")
    shutil.copy(plain, other)
    assert Study(study).person("sub-01").anatomical == (plain, other)
    finding = find(study, "Of 2 T2-weighted volumes", "note")
    assert finding.file.endswith(plain.name) and other.name in finding.problem
    plain.rename(anat(study, "sub-01", "acq-TSE_T2w.nii.gz"))
    find(study, "There are 2 T2-weighted volumes")


def test_two_series_of_a_kind(study):
    rng = np.random.default_rng(0)
    for name in ("acq-a_MESE.nii.gz", "acq-b_MESE.nii.gz"):
        write_series(anat(study, "sub-01", name), rng, (0.01, 0.02), "EchoTime")
    assert "sub-01_acq-a_MESE" in find(study, "2 T2 series").problem


def test_echoes_in_files_of_their_own_are_one_series(study):
    for n in (1, 2, 10):
        echo = Image(np.ones(GEOMETRY.shape, np.float32), GEOMETRY)
        write_image(echo, anat(study, "sub-01", f"echo-{n}_MESE.nii.gz"))
        anat(study, "sub-01", f"echo-{n}_MESE.json").write_text(json.dumps({"EchoTime": n * 0.01}))
    series = Study(study).person("sub-01").of_kind("T2")
    assert [f.name.split("_")[1] for f in series.files] == ["echo-1", "echo-2", "echo-10"]
    assert validate(Study(study)) == []


def test_decimal_commas_are_read_and_said(study):
    path = study / "participants.tsv"
    path.write_text(path.read_text().replace("\t32\t", "\t32,5\t"))
    assert Study(study).participants["age"][1] == "32.5"
    find(study, "commas in 'age' are read as decimal points", severity="warning", formula="age")


def test_comma_that_may_stand_for_thousands(study):
    path = study / "participants.tsv"
    path.write_text(path.read_text().replace("\t32\t", "\t3,250\t"))
    finding = find(study, "of '3,250' may stand for decimals or thousands", formula="age")
    assert "Column 'age', line 3 (sub-02):" in finding.problem
    assert "3.250" in finding.remedy and "3250" in finding.remedy
    find(study, "has commas in numbers", severity="warning")


def test_an_output_folder_that_no_disk_takes_is_said(study):
    (finding,) = [f for f in validate(Study(study, output=study.parent / ("x" * 300)), make_settings())
                  if f.severity == "error"]
    assert "too long" in finding.problem and finding.remedy


@pytest.mark.parametrize("written", ["sub\u201301", "sub_01", "SUB-01", "01", "1", "1.0"])
def test_an_id_written_in_another_way_is_named(study, written):
    path = study / "participants.tsv"
    path.write_text(path.read_text().replace("sub-01", written), encoding="utf-8")
    assert find(study, f"the id is written '{written}'").person == "sub-01"


def test_empty_cells_are_one_line_per_column(tmp_path):
    root = make_study(tmp_path / "study", people=12)
    path = root / "participants.tsv"
    lines = [line.split("\t") for line in path.read_text().split("\n")]
    column = lines[0].index("age")
    for cells in lines[1:9]:
        cells[column] = "n/a"
    path.write_text("\n".join("\t".join(cells) for cells in lines))
    found = [f for f in validate(Study(root), make_settings(formula="age")) if "is empty" in f.problem]
    assert [f.problem for f in found] == ["Column 'age' is empty for 8 of 12 participants: sub-01, sub-02, sub-03, "
                                          "sub-04, sub-05 and 3 more."]


def test_words_among_numbers_are_one_line_per_column(tmp_path):
    root = make_study(tmp_path / "study", people=5)
    path = root / "participants.tsv"
    path.write_text(path.read_text().replace("\t31\t", "\tyoung\t").replace("\t33\t", "\told\t"))
    problem = find(root, "is not a number", formula="age").problem
    assert "Column 'age', line 2 (sub-01), line 4 (sub-03): 'young'" in problem


def test_words_and_numbers_that_others_write_for_a_missing_value_are_said(study):
    path = study / "participants.tsv"
    rows = [["participant_id", "group", "vas", "bmi"], ["sub-01", "NA", "3", "25"], ["sub-02", "drug", "-9", "31"],
            ["sub-03", "drug", "5", "999"]]
    path.write_text("\n".join("\t".join(row) for row in rows))
    settings = {"formula": "C(group) + vas + bmi", "severity": "warning"}
    assert find(study, "'NA' is a group of its own", **settings).remedy.startswith("Write 'n/a'")
    assert "'vas'" in find(study, "-9 is used as a number", **settings).problem
    assert "'bmi'" in find(study, "999 is used as a number", **settings).problem


def test_low_and_high_values_are_no_codes(study):
    path = study / "participants.tsv"
    path.write_text("participant_id\tt\tn\nsub-01\t-9\t99\nsub-02\t-7\t90\nsub-03\t4\t60\n")
    assert not [f for f in validate(Study(study), make_settings(formula="t + n")) if "as a number" in f.problem]


def test_byte_order_mark_is_read(study):
    path = study / "participants.tsv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert validate(Study(study), make_settings(formula="age")) == []
    assert Study(study).participants.names[0] == "participant_id"


@pytest.mark.parametrize(("change", "words"), [
    (lambda t: t.replace("participant_id", "id"), "lacks the column(s) participant_id"),
    (lambda t: t + "\n\t50\tM\t1\t1\n", "Line 6: there is no participant_id"),
    (lambda t: t + t.splitlines()[-1] + "\n", "'sub-03' has 2 rows (lines 4 and 5)"),
    (lambda t: t.replace("sub-02", "02"), "Line 3: the id is written '02'"),
    (lambda t: t.replace("\t32\t", "\tabc\t"), "'abc' is not a number"),
])
def test_bad_participants_table(study, change, words):
    path = study / "participants.tsv"
    path.write_text(change(path.read_text()))
    find(study, words, formula="age")


def test_table_and_folders_disagree(study):
    path = study / "participants.tsv"
    path.write_text(path.read_text().replace("sub-02", "sub-09"))
    assert find(study, "Line 3: the person has a row but no folder", severity="warning").person == "sub-09"
    assert find(study, "a folder but no row", severity="warning").person == "sub-02"


def test_latin1_table(study):
    (study / "participants.tsv").write_bytes("participant_id\tname\nsub-01\tMüller\n".encode("latin-1"))
    find(study, "not UTF-8")


def test_formula_names_a_missing_column(study):
    assert "odi" in find(study, "variable 'odi' is not a column", formula="odi + age").problem


def test_truncated_image(study):
    path = anat(study, "sub-03", "T2w.nii.gz")
    path.write_bytes(path.read_bytes()[:-3000])
    assert find(study, "truncated").person == "sub-03"


def test_unreadable_image(study):
    anat(study, "sub-03", "T2w.nii.gz").write_bytes(b"no image")
    find(study, "cannot be read")


def test_axial_and_small_images(study):
    for person, size, spacing, words in (("sub-01", (80, 80, 30), (2, 2, 5), "axial"),
                                         ("sub-02", (80, 12, 80), (2, 5, 2), "coronal"),
                                         ("sub-03", (20, 60, 60), (4.0, 1.5, 1.5), "not a lumbar spine")):
        geometry = Geometry(size, spacing)
        write_image(Image(np.ones(geometry.shape, np.uint8), geometry), anat(study, person, "T2w.nii.gz"))
        assert find(study, words).person == person


def test_the_design_is_of_those_who_have_images(study):
    path = study / "participants.tsv"
    head, *rows = path.read_text().splitlines()
    path.write_text("\n".join([head, *rows, *(r.replace("sub-0", "sub-9") for r in rows)]) + "\n")
    find(study, "observations cannot estimate a model", formula="T1rho ~ age + C(sex)")


def test_a_single_slice_is_warned_of_and_must_be_sagittal(study):
    geometry = Geometry((1, 300, 300), (4.0, 0.7, 0.7))
    write_image(Image(np.ones(geometry.shape, np.uint8), geometry), anat(study, "sub-01", "T2w.nii.gz"))
    assert find(study, "single slice", "warning").person == "sub-01"
    geometry = Geometry((300, 300, 1), (0.7, 0.7, 4.0))
    write_image(Image(np.ones(geometry.shape, np.uint8), geometry), anat(study, "sub-02", "T2w.nii.gz"))
    assert find(study, "axial").person == "sub-02"


def test_body_part_in_the_sidecar(study):
    anat(study, "sub-01", "T2w.json").write_text('{"BodyPartExamined": "BRAIN"}')
    find(study, "body part 'BRAIN'")


def test_identity_in_the_sidecar_is_warned_of(study):
    anat(study, "sub-01", "T2w.json").write_text('{"PatientName": "Erika Mustermann"}')
    finding = find(study, "PatientName", severity="warning")
    assert "Mustermann" not in str(finding)


def test_empty_study(tmp_path):
    (tmp_path / "a.dcm").write_bytes(b"")
    assert "dcm2niix" in find(tmp_path, "has no people").remedy
    with pytest.raises(StudyError, match="has no people"):
        run_study(tmp_path, pipeline=stages)


def test_missing_folder():
    with pytest.raises(StudyError, match="does not exist"):
        run_study("/no/such/study")


def test_sessions_need_a_name(study):
    shutil.move(study / "sub-01" / "anat", study / "sub-01" / "ses-01" / "anat")
    assert "--session ses-01" in find(study, "lie in sessions").remedy


def test_output_that_can_not_be_written(study):
    # A file where a folder is needed refuses writing even to root, for whom permission bits mean nothing.
    blocked = study / "file"
    blocked.write_text("")
    found = validate(Study(study, output=blocked / "out"))
    assert [f for f in found if "cannot be written" in f.problem and "another output folder" in f.remedy]


@pytest.mark.parametrize("place, words", [
    (".", "folder of the study's data"), ("sub-01", "('sub-01')"), ("sub-01/anat/new", "('sub-01/anat/new')"),
    ("derivatives", "('derivatives')"), ("..", "The study lies in the output folder"),
    ("derivatives/other", "is not empty, and not of this program"), ("derivatives/new", ""),
    ("derivatives/ours", ""), ("../beside", "")])
def test_results_go_nowhere_but_into_a_folder_of_their_own(study, place, words):
    for name in ("other", "ours"):
        (study / "derivatives" / name).mkdir(parents=True)
    (study / "derivatives/other/notes.txt").write_text("somebody's")
    (study / "derivatives/ours/dataset_description.json").write_text('{"GeneratedBy": [{"Name": "DiscRelaxometry"}]}')
    found = [f for f in validate(Study(study, output=study / place), make_settings()) if f.severity == "error"]
    assert len(found) == bool(words) and all(words in f.problem and "output folder" in f.remedy for f in found)


def test_full_disk_is_said_before_anything_runs(study, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 10**6))
    find(study, "The disk has 1 MB left")


def test_existing_segmentation_wanted_but_absent(study):
    found = validate(Study(study), make_settings(segmentation="existing"))
    assert sum("no segmentation" in f.problem for f in found) == 3


def test_settings_are_checked_when_made():
    with pytest.raises(StudyError, match="choose one of skip, stop"):
        make_settings(on_error="ignore")
    with pytest.raises(StudyError, match="Unknown setting permutation"):
        make_settings(permutation=5)
    with pytest.raises(StudyError, match="'errors' is 'normal'; choose one of auto, exchangeable, symmetric"):
        make_settings(errors="normal")
    with pytest.raises(StudyError, match="choose one of classical, hc3"):
        make_settings(standard_errors="white")
    with pytest.raises(StudyError, match="letters, digits"):
        make_settings(analysis="../../etc")


def test_formula_variables_and_level_columns():
    assert make_settings(formula="T1rho ~ pfirrmann + log(age) + C(sex):odi").variables == ("pfirrmann", "age", "sex",
                                                                                            "odi")
    assert level_columns(["age", "grade_L4L5", "grade_L5S1"]) == {"grade": {"L4-L5": "grade_L4L5",
                                                                            "L5-S1": "grade_L5S1"}}


def test_times_may_be_in_ms_if_the_key_says_so(study):
    anat(study, "sub-01", "T1rho.json").write_text('{"SpinLockTime_ms": [0, 10, 40, 80]}')
    assert validate(Study(study)) == []


def test_mapss_needs_seven_volumes_and_both_times(study):
    rng = np.random.default_rng(0)
    write_series(anat(study, "sub-01", "acq-mapss_T1rhow.nii.gz"), rng)
    find(study, "has 7")
    write_series(anat(study, "sub-01", "acq-mapss_T1rhow.nii.gz"), rng, (0, 0.01, 0.04, 0.08, 0.1, 0.2, 0.3))
    anat(study, "sub-01", "acq-mapss_T1rhow.json").write_text('{"SpinLockTime": [0, 0.01, 0.04, 0.08]}')
    find(study, "lacks the times of the T2 map")
    anat(study, "sub-01", "acq-mapss_T1rhow.json").write_text(
        '{"SpinLockTime": [0, 0.01, 0.04, 0.08], "EchoTime": [0, 0.0137, 0.0273, 0.0547]}')
    assert validate(Study(study)) == []
    assert Study(study).person("sub-01").kinds == ("T1rho", "T2")


def test_what_a_run_leaves_out_is_named(study):
    for person in ("sub-01", "sub-02"):
        anat(study, person, "part-phase_T1rho.nii.gz").write_bytes(b"")
    anat(study, "sub-01", "T1w.nii.gz").write_bytes(b"")
    anat(study, "sub-01", "T1w.json").write_text("{}")
    assert "2 file(s)" in find(study, "of kind phase are left out", severity="note").problem
    assert find(study, "1 file(s) of kind 'T1w'", severity="note").file == "sub-01/anat/sub-01_T1w.nii.gz"


def write_labels(study, *values):
    array = np.zeros(GEOMETRY.shape, np.uint16)
    for place, value in enumerate(values):
        array[5 + 4 * place:8 + 4 * place] = value
    write_image(Image(array, GEOMETRY), anat(study, "sub-01", "dseg.nii.gz"))


def test_label_values_that_nobody_knows_are_named(study):
    write_labels(study, 11, 12, 13)
    assert not [f for f in validate(Study(study)) if "dseg" in f.file]
    write_labels(study, 7001, 7002)
    assert find(study, "7001, 7002").file == "sub-01/anat/sub-01_dseg.nii.gz"
    assert not [f for f in validate(Study(study), make_settings(segmentation="cnn")) if "7001" in f.problem]


def test_contradictions_in_a_header_are_shown(study):
    nibabel = pytest.importorskip("nibabel")
    path = anat(study, "sub-02", "T2w.nii.gz")
    image = nibabel.load(path)
    moved = image.affine.copy()
    moved[:3, 3] += 20
    image = nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine)
    image.set_qform(image.affine, 1)
    image.set_sform(moved, 1)
    nibabel.save(image, path)
    assert find(study, "sform and qform", severity="warning").person == "sub-02"
