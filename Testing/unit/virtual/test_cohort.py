"""The simulated cohort: its people, anatomy and images are what was planted, and say that they are simulated."""

import json
from dataclasses import replace

import numpy as np
import pytest
from support import shared_data

from DiscRelaxometryLib.echo.read import read_mapss
from DiscRelaxometryLib.errors import Cancelled, StudyError
from DiscRelaxometryLib.fit import FitOptions, fit_arrays, fit_relaxation
from DiscRelaxometryLib.image import Geometry, Image, read_image
from DiscRelaxometryLib.labels import LUMBAR_LEVELS, disc_value
from DiscRelaxometryLib.measure.measures import measure_discs
from DiscRelaxometryLib.tables import read_tsv
from DiscStudyLib.folder.study import Study
from DiscStudyLib.folder.validate import validate
from DiscStudyLib.virtual.anatomy import DISC_SIZES, TISSUES, build_anatomy
from DiscStudyLib.virtual.people import ANNULUS, LEVELS, NUCLEUS
from DiscStudyLib.virtual.real import _tissue
from DiscStudyLib.virtual.signal import _DISC_M0, _SCALE, ECHO_MS, SPIN_LOCK_MS, disc_values
from DiscStudyLib.virtual.study import (
    PlantedEffect,
    RealPerson,
    Site,
    draw_people,
    embedded_people,
    scan_person,
    write_virtual_study,
)

COARSE = (1.0, 1.0, 2.0)
SITES = (Site("A", (1, 1, 1), (2, 1, 1), snr=60.0), Site("B", (1, 1, 1), (2, 2, 2), snr=40.0, left_handed=False))


@pytest.fixture(scope="module")
def crowd():
    return draw_people(1500, seed=1)


def test_population_follows_its_sources(crowd):
    grades = np.array([[p.grade(level) for level in LEVELS] for p in crowd])
    assert set(np.unique(grades)) == {1, 2, 3, 4, 5}
    between = np.corrcoef(grades.T)[np.triu_indices(len(LEVELS), 1)]
    assert between.min() > 0.4
    for n, level in enumerate(LEVELS):
        t1rho = np.array([p.nucleus["T1rho", level] for p in crowd])
        t2 = np.array([p.nucleus["T2", level] for p in crowd])
        assert np.all(t1rho > t2)
        # Blumenkrantz 2010: r = -0.84 of T1rho with the grade.
        assert np.corrcoef(grades[:, n], t1rho)[0, 1] == pytest.approx(-0.84, abs=0.05)
    for grade in (2, 3, 4):
        logs = [np.log(p.nucleus["T1rho", level] / NUCLEUS["T1rho"][grade - 1])
                for p in crowd for level in LEVELS if p.grade(level) == grade]
        assert abs(np.mean(logs)) < 0.06
    odi = np.array([p.odi for p in crowd])
    lower = np.array([np.log(p.nucleus["T1rho", "L4-L5"] * p.nucleus["T1rho", "L5-S1"]) for p in crowd])
    assert np.corrcoef(odi, lower)[0, 1] ** 2 == pytest.approx(0.56, abs=0.06)
    assert 0.15 < np.mean(odi > 40) < 0.35
    assert [replace(crowd[0], odi=n).variables["odi_group"] for n in (40, 42)] == ["minimal_moderate", "severe"]
    fat = {sex: np.mean([p.fat_fraction for p in crowd if p.sex == sex]) for sex in "FM"}
    assert fat == {"F": pytest.approx(22.5, abs=1.5), "M": pytest.approx(14.4, abs=1.5)}
    assert [p.site for p in draw_people(7, 1, sites=2)] == [0, 0, 1, 0, 0, 1, 0]
    assert np.all(odi % 2 == 0)


def test_same_seed_same_people():
    assert draw_people(5, 3) == draw_people(5, 3)
    assert draw_people(5, 3) != draw_people(5, 4)
    with pytest.raises(StudyError, match="at least one"):
        draw_people(0, 1)


def test_null_cohort_has_the_same_images_and_no_association(crowd):
    null = draw_people(1500, seed=1, null=True)
    assert [p.nucleus for p in null] == [p.nucleus for p in crowd]
    t1rho = np.array([p.nucleus["T1rho", "L4-L5"] for p in null])
    table, true = ([p.variables for p in people] for people in (null, crowd))
    for name in ("odi", "pfirrmann_L4L5", "fat_fraction"):
        listed = np.array([row[name] for row in table])
        assert sorted(listed) == sorted(row[name] for row in true)
        assert abs(np.corrcoef(listed, t1rho)[0, 1]) < 0.08


def test_discs_have_the_literature_sizes():
    people = draw_people(2, 2)
    found = {level: [] for level in LUMBAR_LEVELS}
    for person in people:
        anatomy = build_anatomy(person, (0.8, 0.8, 1.6))
        labels = Image(np.where((anatomy.labels > 10) & (anatomy.labels < 17), anatomy.labels, 0), anatomy.geometry)
        rows = {row["level"]: row for row in measure_discs(labels).rows}
        for level in LUMBAR_LEVELS:
            front, middle, back, length = anatomy.measures[level]
            row = rows[level]
            assert row["ap_diameter"] == pytest.approx(length, rel=0.06)
            assert row["height_middle"] == pytest.approx(middle, abs=1.2)
            assert row["height_anterior"] > row["height_posterior"]
            found[level].append(length)
    for level, lengths in found.items():
        assert np.mean(lengths) == pytest.approx(DISC_SIZES[level][3], rel=0.08)


def test_anatomy_is_complete_and_ordered():
    anatomy = build_anatomy(draw_people(1, 4)[0], COARSE)
    assert set(anatomy.discs) == set(LEVELS)
    assert {2, 30, 31, 32, 33, 34, 35} <= set(np.unique(anatomy.labels))
    j = {level: np.nonzero(anatomy.labels == disc_value(level))[1].mean() for level in LEVELS}
    assert list(j.values()) == sorted(j.values())
    for level, (flat, xyz) in anatomy.discs.items():
        assert np.all(anatomy.labels.ravel()[flat] == disc_value(level))
        assert np.abs(xyz[:, 2]).max() <= 1
        # The canal lies behind every disc.
        canal = np.nonzero(anatomy.labels == 2)
        near = np.abs(canal[1] - j[level]) < 3
        assert canal[2][near].mean() > (flat % anatomy.labels.shape[2]).mean()


def test_tissue_values_by_region_and_grade():
    person = draw_people(1, 5)[0]
    nucleus, annulus = np.array([[0.0, -0.05, 0.3]]), np.array([[0.0, 0.95, 0.0], [0.0, -0.95, 0.0]])
    for grade, kind in ((1, "T1rho"), (1, "T2"), (5, "T1rho")):
        made = {**person.__dict__, "severity": dict.fromkeys(LEVELS, float(grade)),
                "nucleus": {(k, level): NUCLEUS[k][grade - 1] for k in NUCLEUS for level in LEVELS},
                "annulus": {(k, level): ANNULUS[k][grade - 1] for k in ANNULUS for level in LEVELS}}
        one = type(person)(**made)
        inner = disc_values(one, "L4-L5", kind, nucleus)[0]
        front, back = disc_values(one, "L4-L5", kind, annulus)
        assert inner == pytest.approx(NUCLEUS[kind][grade - 1], rel=0.12)
        assert np.mean([front, back]) == pytest.approx(ANNULUS[kind][grade - 1], rel=0.12)
        # The nucleus stands out while healthy and does not when degenerated.
        assert (inner / front > 2) == (grade == 1)


def test_planted_effect_is_in_the_truth():
    person = draw_people(1, 6)[0]
    effect = PlantedEffect("odi", "T1rho", "L4-L5", slope=-0.5, reference=0.0)
    at = np.array([effect.center, (0.0, 1.0, 0.0)])
    change = disc_values(person, "L4-L5", "T1rho", at, [effect]) - disc_values(person, "L4-L5", "T1rho", at)
    assert change[0] == pytest.approx(-0.5 * person.odi, rel=1e-6)
    assert abs(change[1]) < 0.01 * abs(change[0])
    assert np.array_equal(disc_values(person, "L3-L4", "T1rho", at, [effect]),
                          disc_values(person, "L3-L4", "T1rho", at))


@pytest.mark.parametrize(("kind", "rows", "times"), [("T1rho", [0, 1, 2, 3], SPIN_LOCK_MS),
                                                     ("T2", [0, 4, 5, 6], ECHO_MS)])
def test_fit_recovers_the_planted_values_within_its_own_error(kind, rows, times):
    scanner = scan_person(draw_people(1, 7)[0], SITES[0], echo_motion_mm=0, series_motion_mm=0, spacing=COARSE)
    volumes, geometry = scanner.mapss()
    truth = scanner.truth_maps()
    assert geometry.difference(truth[kind].geometry) == ""
    pure = truth["disc_share"].array > 0.999
    sigma = _SCALE * _DISC_M0 / SITES[0].snr
    fit = fit_arrays(volumes[rows][:, pure], times, FitOptions(noise=sigma))
    error = fit.value - truth[kind].array[pure]
    assert np.isfinite(error).mean() > 0.99
    # Two voxels of the fine grid make one: their mixture adds little to the noise.
    z = error / fit.se
    assert abs(np.nanmedian(z)) < 0.1
    assert 1.48 * np.nanmedian(np.abs(z)) == pytest.approx(1, abs=0.12)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("virtual") / "study"
    people = write_virtual_study(folder, 3, seed=8, sites=2, real=(), spacing=COARSE)
    return folder, people


def test_written_study_is_valid_and_says_simulated(study):
    folder, people = study
    assert [f for f in validate(Study(folder)) if f.severity == "error"] == []
    assert Study(folder).simulated
    table = read_tsv(folder / "participants.tsv", required=("participant_id", "odi", "pfirrmann_L4L5"))
    assert table["participant_id"] == [p.id for p in people]
    assert "SIMULATED" in (folder / "README").read_text()
    assert "SIMULATED" in json.loads((folder / "participants.json").read_text())["odi"]["Description"]
    for file in folder.rglob("*.json"):
        if "sub-" in file.name:
            assert "SIMULATED" in file.read_text()


def test_written_images_read_back(study):
    folder, people = study
    handed = []
    for person in people:
        anat = folder / person.id / "anat"
        t1rho, t2 = read_mapss(anat / f"{person.id}_acq-mapss_T1rho.nii.gz")
        assert t1rho.times_ms.tolist() == list(SPIN_LOCK_MS)
        assert t2.times_ms.tolist() == pytest.approx(list(ECHO_MS))
        assert np.array_equal(t1rho.echoes[0], t2.echoes[0])
        handed.append(np.sign(np.linalg.det(t1rho.geometry.matrix3)))
        truth = folder / "derivatives/ground-truth" / person.id / "anat"
        image = read_image(anat / f"{person.id}_T2w.nii.gz")
        labels = read_image(truth / f"{person.id}_dseg.nii.gz")
        assert image.geometry.difference(labels.geometry) == ""
        assert {disc_value(level) for level in LUMBAR_LEVELS} <= set(np.unique(labels.array))
        # Fluid is the brightest of a T2-weighted volume; the discs lie well below.
        assert np.median(image.array[labels.array == 2]) > 2 * np.median(image.array[labels.array == 12])
        on_maps = read_image(truth / f"{person.id}_space-mapss_desc-truth_labels.nii.gz")
        fit = fit_relaxation(t1rho, mask=Image(np.isin(on_maps.array, range(11, 16)), on_maps.geometry))
        planted = read_image(truth / f"{person.id}_space-mapss_desc-truth_T1rhomap.nii.gz")
        error = (fit.value - planted.array)[on_maps.array == 13]
        assert abs(np.nanmedian(error)) < 6
    assert handed == [-1, -1, 1]


def test_same_seed_same_images(study, tmp_path):
    folder, _ = study
    write_virtual_study(tmp_path / "again", 1, seed=8, real=(), spacing=COARSE)
    name = "sub-01/anat/sub-01_acq-mapss_T1rho.nii.gz"
    assert np.array_equal(read_mapss(folder / name)[0].echoes, read_mapss(tmp_path / "again" / name)[0].echoes)


def test_refusals_and_cancel(study, tmp_path, monkeypatch):
    with monkeypatch.context() as here, pytest.raises(StudyError, match=f"'{study[0].name}' is not empty"):
        here.chdir(study[0])
        write_virtual_study(".", 1)
    with pytest.raises(StudyError, match="1 or 2 sites"):
        write_virtual_study(tmp_path / "x", 1, sites=3)

    def cancel(fraction, text):
        raise Cancelled

    with pytest.raises(Cancelled):
        write_virtual_study(tmp_path / "x", 1, progressCallback=cancel)


def test_real_anatomy_without_discs_is_refused():
    empty = Image(np.ones((8, 20, 20), np.uint8), Geometry((20, 20, 8), (1, 1, 4)))
    with pytest.raises(StudyError, match="no lumbar disc"):
        scan_person(draw_people(1, 1)[0], SITES[0], real=RealPerson(empty), spacing=COARSE)


def test_shipped_anatomies_are_the_default(tmp_path):
    person, = write_virtual_study(tmp_path / "study", 1, seed=8, spacing=COARSE, truth_maps=False)
    real, = embedded_people(1)
    assert person.age == real.given["age"]
    assert {level: person.grade(level) for level in real.given["grades"]} == real.given["grades"]
    written = read_image(tmp_path / "study" / person.id / "anat" / f"{person.id}_T2w.nii.gz")
    assert np.array_equal(written.array, real.t2w.array)
    assert "CC BY 4.0" in (tmp_path / "study" / "README").read_text()


@pytest.mark.shared_data
def test_tissue_of_a_real_person_is_told_by_its_signal():
    labels = Image(np.zeros((1, 1, 6), np.uint8), Geometry((6, 1, 1)))
    labels.array[0, 0, 4:] = 2, 2
    signal = labels.like(np.array([[[3, 15, 40, 60, 100, 100]]], np.float32))
    found = _tissue(labels.array, labels.geometry, RealPerson(labels, signal))
    assert [TISSUES[n] for n in found[0, 0]] == ["air", "muscle", "viscera", "fat", "csf", "csf"]


def test_real_discs_keep_their_shape_and_take_their_grade():
    folder = shared_data("spider_t2space")
    labels = read_image(folder / "sub-005_dseg.nii.gz")
    real = RealPerson(labels, read_image(folder / "sub-005_T2w.nii.gz"), "SPIDER, CC BY 4.0",
                      {"age": 40, "sex": "M", "grades": {"L4-L5": 4, "L3-L4": 2}})
    person = draw_people(1, 9, real=[real.given])[0]
    assert (person.age, person.sex, person.grade("L4-L5"), person.grade("L3-L4")) == (40, "M", 4, 2)
    scanner = scan_person(person, SITES[0], real=real, echo_motion_mm=0, series_motion_mm=0, spacing=COARSE)
    assert scanner.t2w() is real.t2w
    back = scanner.labels("t2w")
    for value in (11, 12, 13):
        a, b = back.array == value, labels.array == value
        assert 2 * np.sum(a & b) / (a.sum() + b.sum()) > 0.9
    truth = scanner.truth_maps()
    on_maps = scanner.labels("mapss")
    healthy, worn = (np.nanmax(truth["T1rho"].array[on_maps.array == v]) for v in (13, 12))
    assert healthy > 1.3 * worn


def test_tissue_goes_on_where_a_person_moves_out_of_the_slab():
    person = draw_people(1, 3)[0]
    scanner = scan_person(person, spacing=(2.0, 2.0, 2.0))
    uniform = np.ones(scanner.anatomy.labels.shape, np.float32)
    moved = scanner._moved(uniform, np.array([5.0, -4.0, 6.0, 3.0, 2.0, -3.0]))
    # Air that moved in would lower the outer slices of some echoes and change their decay.
    np.testing.assert_allclose(moved, 1, atol=1e-6)
