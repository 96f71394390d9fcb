"""The published archive of SPIDER as a study, on made files of its form (the archive itself is not at hand)."""

import json
import shutil

import numpy as np
import pytest
import SimpleITK as sitk
from support.kills import killed_at_each_write

from DiscRelaxometryLib.errors import StudyError
from DiscRelaxometryLib.image import read_image
from DiscRelaxometryLib.labels import disc_value
from DiscRelaxometryLib.tables import read_tsv
from DiscStudyLib.folder import Study, import_spider, level_columns, validate

GRADINGS = """Patient,IVD label,Modic,UP endplate,LOW endplate,Spondylolisthesis,Disc herniation,Disc narrowing,\
Disc bulging,Pfirrman grade
1,1,0,1,0,0,0,1,1,5
1,2,2,0,0,1,0,0,1,3
1,7,0,0,0,0,0,0,0,2
12,1,7,6,5,4,3,2,8,1
12,0,0,0,0,0,0,0,0,4
"""
OVERVIEW = """new_file_name,subset,num_vertebrae,num_discs,sex,birth_date,AcquisitionDate,EchoTime,\
MagneticFieldStrength,Manufacturer,ManufacturerModelName,RepetitionTime
1_t1,training,8,7,F,19700101,20190301,9.5,1.5,SIEMENS,Avanto,600
1_t2,training,8,7,F,19700101,20190301,114,1.5,SIEMENS,Avanto,3500
1_t2_SPACE,training,8,7,F,19700101,20190301,124,1.5,SIEMENS,Avanto,1000
12_t2,validation,5,6,M,,,120,3,Philips,Ingenia,3200
"""
#: Columns run to the patient's left, rows backward and downward: no direction is the usual one.
DIRECTION = (0, 0, 1, 1, 0, 0, 0, -1, 0)


def write_mha(array, path, spacing=(3.0, 4.0, 4.0)):
    image = sitk.GetImageFromArray(array)
    image.SetDirection(DIRECTION)
    image.SetSpacing(spacing)
    image.SetOrigin((-30.0, 12.0, 400.0))
    path.parent.mkdir(exist_ok=True)
    sitk.WriteImage(image, str(path))


def mask():
    """Rows run downward: three discs of the archive's values, the canal, vertebrae between, and an unknown value."""
    found = np.zeros((3, 60, 24), np.uint8)
    for disc, row in ((1, 48), (2, 32), (7, 6)):
        found[:, row:row + 5, 4:14] = 200 + disc
        found[:, row + 6:row + 10, 4:14] = max(disc - 1, 1)
    found[:, 5:55, 16:20] = 100
    found[0, 0, 0] = 250
    return found


@pytest.fixture
def archive(tmp_path):
    folder = tmp_path / "spider"
    folder.mkdir()
    (folder / "radiological_gradings.csv").write_text(GRADINGS)
    (folder / "overview.csv").write_text(OVERVIEW)
    for number, name in enumerate(("1_t1", "1_t2", "1_t2_SPACE", "12_t2")):
        write_mha(np.full((3, 60, 24), 100 + number, np.int16), folder / "images" / f"{name}.mha")
        write_mha(mask(), folder / "masks" / f"{name}.mha")
    return folder


def test_every_series_mask_and_grade_is_where_a_study_looks_for_it(archive, tmp_path):
    notes = import_spider(archive, tmp_path / "study")
    study = Study(tmp_path / "study")
    assert [p.id for p in study.people] == ["sub-001", "sub-012"]
    person = study.people[0]
    assert [p.name for p in person.anatomical] == ["sub-001_T2w.nii.gz", "sub-001_acq-SPACE_T2w.nii.gz"]
    assert [p.parts[-4] for p in person.reference] == ["reference", "reference-SPACE", "reference-T1w"]
    image, labels = read_image(person.anatomical[0]), read_image(person.reference[0])
    source = read_image(archive / "images" / "1_t2.mha")
    assert not source.geometry.difference(image.geometry) and not source.geometry.difference(labels.geometry)
    assert (image.array == 101).all()
    theirs = mask()
    for level, value in (("L5-S1", 201), ("L4-L5", 202), ("T11-T12", 207)):
        np.testing.assert_array_equal(labels.array == disc_value(level), theirs == value)
    sidecar = json.loads((tmp_path / "study/sub-001/anat/sub-001_acq-SPACE_T2w.json").read_text())
    assert sidecar["EchoTime"] == pytest.approx(0.124) and sidecar["RepetitionTime"] == pytest.approx(1.0)
    assert len(notes) == 1 and "disc '0'" in notes[0] and "row 6" in notes[0]


def test_participants_have_facts_of_their_series_and_grades_by_level(archive, tmp_path):
    import_spider(archive, tmp_path / "study")
    table = read_tsv(tmp_path / "study" / "participants.tsv")
    first, second = table.rows
    assert first["age"] == "49" and second["age"] == "n/a" and second["sex"] == "M"
    assert {n: first[n] for n in ("echo_time_ms", "repetition_time_ms", "field_T", "model")} == {
        "echo_time_ms": "114", "repetition_time_ms": "3500", "field_T": "1.5", "model": "Avanto"}
    assert {n: second[n] for n in ("number_of_vertebrae", "number_of_discs", "subset", "manufacturer")} == {
        "number_of_vertebrae": "5", "number_of_discs": "6", "subset": "validation", "manufacturer": "Philips"}
    # The archive's columns have a value each.
    assert {n.removesuffix("_L5S1"): second[n] for n in table.names if n.endswith("_L5S1")} == {
        "modic": "7", "upper_endplate": "6", "lower_endplate": "5", "spondylolisthesis": "4", "herniation": "3",
        "narrowing": "2", "bulging": "8", "pfirrmann": "1"}
    assert first["pfirrmann_L5S1"] == "5" and first["pfirrmann_L4L5"] == "3" and first["pfirrmann_L1L2"] == "n/a"
    assert first["modic_L4L5"] == "2" and first["upper_endplate_L5S1"] == "1" and second["pfirrmann_L5S1"] == "1"
    assert set(level_columns(table.names)["pfirrmann"]) == {"L5-S1", "L4-L5", "L3-L4", "L2-L3", "L1-L2"}
    every = read_tsv(tmp_path / "study" / "phenotype" / "radiological_gradings.tsv").rows
    assert [(r["participant_id"], r["level"], r["pfirrmann"]) for r in every] == [
        ("sub-001", "L5-S1", "5"), ("sub-001", "L4-L5", "3"), ("sub-001", "T11-T12", "2"), ("sub-012", "L5-S1", "1")]
    assert not [f for f in validate(Study(tmp_path / "study")) if f.severity == "error"]


def test_a_second_call_goes_on_and_keeps_what_is_there(archive, tmp_path):
    target = tmp_path / "study"
    import_spider(archive, target)
    kept, lost = target / "sub-001/anat/sub-001_T2w.nii.gz", target / "sub-012/anat/sub-012_T2w.nii.gz"
    before = kept.stat().st_mtime_ns
    lost.unlink()
    import_spider(archive, target)
    assert kept.stat().st_mtime_ns == before and lost.exists()


def test_an_import_that_was_killed_is_finished_by_the_next_whenever_it_was(archive, tmp_path):
    def files(folder):
        return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    import_spider(archive, tmp_path / "whole")
    whole, target = files(tmp_path / "whole"), tmp_path / "cut"
    for moment in killed_at_each_write(lambda: import_spider(archive, target)):
        import_spider(archive, target)
        assert files(target) == whole, moment
        shutil.rmtree(target)
    assert moment > 12 and files(target) == whole


@pytest.mark.parametrize("damage, said", [
    (lambda a: (a / "images" / "1_t2.mha").rename(a / "images" / "one.mha"), "images/one.mha: not named"),
    (lambda a: (a / "masks" / "12_t2.mha").unlink(), "12_t2.mha: no mask"),
    (lambda a: write_mha(mask(), a / "masks" / "12_t2.mha", (3.0, 4.0, 5.0)), "masks/12_t2.mha: left out"),
    (lambda a: write_mha(np.zeros((3, 60, 24), np.uint8), a / "masks" / "12_t2.mha"), "masks/12_t2.mha: left out"),
    (lambda a: (a / "overview.csv").write_text(OVERVIEW.replace("12_t2", "13_t2")), "12_t2.mha: not in overview.csv")])
def test_what_is_left_out_is_said(archive, tmp_path, damage, said):
    damage(archive)
    assert any(said in note for note in import_spider(archive, tmp_path / "study"))


@pytest.mark.parametrize("damage, said", [
    (lambda a: (a / "masks").rename(a / "mask"), "has no folder 'masks'"),
    (lambda a: [p.unlink() for p in (a / "images").iterdir()], "holds no file such as 1_t2.mha"),
    (lambda a: (a / "radiological_gradings.csv").write_text(GRADINGS.replace("Modic", "Modik")), "lacks the column"),
    (lambda a: (a / "radiological_gradings.csv").write_text(GRADINGS + "1,1,0,1,0,0,0,1,1,4\n"), "twice")])
def test_what_is_no_archive_is_refused_before_anything_is_written(archive, tmp_path, damage, said):
    damage(archive)
    with pytest.raises(StudyError, match=said):
        import_spider(archive, tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_the_current_folder_has_its_name_in_messages(archive, tmp_path, monkeypatch):
    (archive / "masks").rename(archive / "mask")
    monkeypatch.chdir(archive)
    with pytest.raises(StudyError, match=f"^'{archive.name}' has no folder"):
        import_spider(".", tmp_path / "study")


def test_another_studys_folder_is_refused(archive, tmp_path):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "notes.txt").write_text("mine")
    with pytest.raises(StudyError, match="something else"):
        import_spider(archive, tmp_path / "study")
