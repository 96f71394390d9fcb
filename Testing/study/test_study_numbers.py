"""What a study writes and its report says, recomputed from the written files by other means."""

import warnings

import numpy as np
import pytest
from support.cohort_phantom import ANNULUS, LEVELS, MOTION, true_nucleus
from support.study_results import GRADE, HAVE, SETTINGS, at_level, output, page_tables, stat, warped

from DiscRelaxometryLib.headless import start_headless
from DiscRelaxometryLib.image import read_image
from DiscRelaxometryLib.labels import disc_value
from DiscRelaxometryLib.measure import PARTITION
from DiscRelaxometryLib.tables import Table
from DiscStatsLib.analysis import analyze
from DiscStatsLib.design import read_participants
from DiscStatsLib.settings import AnalysisSettings
from DiscStudyLib import Study, make_settings
from DiscStudyLib.after import find_maps
from DiscStudyLib.engine import PersonContext, endings, read_rows, shipped_atlas
from DiscStudyLib.engine.runner import person_records
from DiscStudyLib.report.page import cell_text
from DiscStudyLib.steps.review import AUTOMATIC_STEP


def test_group_maps_are_those_of_the_people(run, study):
    for key, people in HAVE.items():
        maps = np.stack([warped(study, p, key).array for p in people]).astype(float)
        count = np.isfinite(maps).sum(axis=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # voxels without a value
            expected = {"n": count, "mean": np.nanmean(maps, axis=0), "sd": np.nanstd(maps, axis=0, ddof=1)}
        assert count.max() == len(people)
        for name, values in expected.items():
            found = read_image(output(study, f"group/space-DiscAtlas_stat-{name}_{key}.nii.gz")).array
            np.testing.assert_allclose(found, values, rtol=1e-5, atol=1e-4, err_msg=f"{name} {key}")


def test_each_level_is_explained_by_its_own_grades(run, study):
    """Correlation with the grade of that person and level, by numpy, where everyone who has the disc has a value."""
    for key, people in HAVE.items():
        found = stat(study, f"{key}_pfirrmann_r")
        images = {p: warped(study, p, key).array.astype(float) for p in people}
        for level in LEVELS:
            graded = [p for p in people if (p, level) in GRADE]
            maps = np.stack([images[p][at_level(level)] for p in graded])
            full = np.isfinite(maps).all(axis=0) & (maps.std(axis=0) > 1e-3)
            grades = np.array([GRADE[p, level] for p in graded], float)
            r = [np.corrcoef(grades, v)[0, 1] for v in maps[:, full].T]
            assert len(r) > 100
            np.testing.assert_allclose(found[at_level(level)][full], r, atol=1e-4, err_msg=f"{key} {level}")


def p_rows(study, key, analysis, level):
    """Return what a row of the report about a level says, from the files of an analysis."""
    inside, row = at_level(level), {}
    for words, name in (("", "pfwe"), (" (TFCE)", "ptfce")):
        p = stat(study, f"{key}_pfirrmann_{name}", analysis)[inside]
        p = p[np.isfinite(p)]
        row |= {f"smallest p{words}": float(p.min()),
                f"significant{words}": 100 * float(np.mean(p < SETTINGS["alpha"]))}
    r = stat(study, f"{key}_pfirrmann_r", analysis)[inside]
    r = r[np.isfinite(r)]
    return row | {"voxels": len(r), "median r": float(np.median(r)), "strongest r": float(r[np.abs(r).argmax()])}


@pytest.mark.parametrize("key", list(HAVE))
def test_tables_of_the_report_are_of_the_corrected_p(run, study, key):
    rows = page_tables(run, "parametric")[f"{key} and pfirrmann, by level"]
    assert {row["level"] for row in rows} == set(LEVELS)
    for row in rows:
        expected = p_rows(study, key, "grade", row["level"])
        for name, value in expected.items():
            assert row[name] == cell_text(value), (row["level"], name)
        p = stat(study, f"{key}_pfirrmann_p")[at_level(row["level"])]
        assert np.nanmin(p) < expected["smallest p"] and 100 * np.mean(
            p[np.isfinite(p)] < SETTINGS["alpha"]) > expected["significant"] + 1, "they must differ"


@pytest.mark.parametrize("key", list(HAVE))
def test_sensitivity_table_is_of_the_corrected_p(run, study, key):
    rows = page_tables(run, "sensitivity")[f"{key} and pfirrmann, by level"]
    counts = {(level, who): len([p for p in HAVE[key] if (p, level) in GRADE and (who == "everyone" or p != "sub-06")])
              for level in reversed(LEVELS) for who in ("everyone", SETTINGS["sensitivity"])}
    # Two people are too few for a line.
    assert {(r["level"], r["analysis"]): int(r["people"]) for r in rows} == {k: n for k, n in counts.items() if n > 2}
    for row in rows:
        name = "grade" if row["analysis"] == "everyone" else "grade-sensitivity"
        expected = p_rows(study, key, name, row["level"])
        for column in ("voxels", "median r", "smallest p", "smallest p (TFCE)"):
            assert row[column] == cell_text(expected[column]), (row, column)


def test_region_table_is_of_the_written_rows(run, study):
    rows = read_rows(output(study, "group/regions.tsv")).rows
    for key in HAVE:
        for row in page_tables(run, "regions")[f"{key} by level and region, mean (SD between people)"]:
            for region in ("whole", "nucleus", "anterior annulus"):
                values = [r["mean"] for r in rows if (r["map"], r["level"], r["region"]) == (
                    key, row["level"], region.replace(" ", "_"))]
                mean, sd = float(np.mean(values)), float(np.std(values, ddof=1))
                assert row[region] == f"{cell_text(mean)} ({cell_text(sd)})"
                assert row["discs"] == str(len(values))


def test_mixed_models_of_the_report_are_those_of_statsmodels(run, study):
    """Grade, level and a random person, fitted by statsmodels to the written tables; limits are its conf_int."""
    pandas, smf = pytest.importorskip("pandas"), pytest.importorskip("statsmodels.formula.api")
    frame = pandas.read_csv(output(study, "group/regions.tsv"), sep="\t", na_values="n/a")
    frame["grade"] = [GRADE.get((p, level)) for p, level in zip(frame.participant_id, frame.level)]
    written = read_rows(output(study, "group/mixed_models.tsv")).rows
    assert {(r["map"], r["region"]) for r in written} >= {(k, r) for k in HAVE for r in ("whole", "nucleus")}
    compared = 0
    for row in written:
        some = frame[(frame["map"] == row["map"]) & (frame.region == row["region"])]
        assert (row["term"], row["discs"], row["people"]) == ("pfirrmann", len(some), some.participant_id.nunique())
        assert np.isfinite([row["low"], row["high"], row["p"]]).all()
        if row["icc"] < 0.1 or row["map"] == "nT2w":  # at the boundary optimizers differ
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            peer, alone = (smf.mixedlm(formula, some, groups=some.participant_id).fit(method=["bfgs", "lbfgs"])
                           for formula in ("mean ~ grade + C(level)", "mean ~ grade"))
        low, high = peer.conf_int().loc["grade"]
        np.testing.assert_allclose((row["estimate"], row["low"], row["high"]), (peer.params["grade"], low, high),
                                   rtol=0.01)
        assert abs(alone.params["grade"] / peer.params["grade"] - 1) > 0.02, "levels must differ by themselves"
        compared += 1
    assert compared >= 2
    shown = page_tables(run, "regions")["T1rho: mixed models"]
    for row, cells in zip((r for r in written if r["map"] == "T1rho"), shown):
        assert cells["change"] == cell_text(row["estimate"]) and cells["p"] == cell_text(row["p"])
        assert cells["95 % limits"] == f"{cell_text(row['low'])} to {cell_text(row['high'])}"


def test_agreement_is_that_of_the_written_masks(run, study):
    rows = read_rows(output(study, "group/agreement.tsv")).rows
    assert {(r["participant_id"], r["level"]) for r in rows} == {(p, v) for p in ("sub-01", "sub-02") for v in LEVELS}
    for row in rows:
        person, value = row["participant_id"], disc_value(row["level"])
        found, true = (read_image(path).array == value for path in (
            output(study, f"{person}/anat/{person}_desc-discs_dseg.nii.gz"),
            study / f"derivatives/rater/{person}/anat/{person}_dseg.nii.gz"))
        assert row["dice"] == pytest.approx(2 * (found & true).sum() / (found.sum() + true.sum()))
        assert row["dice"] < 1 if (person, row["level"]) in {("sub-01", "L4-L5"), ("sub-02", "L5-S1")} else row[
            "dice"] == 1
        image = read_image(output(study, f"{person}/anat/{person}_desc-csfnorm_nT2w.nii.gz")).array
        assert row["nT2w"] == pytest.approx(image[found].mean(), rel=1e-5)
        assert row["nT2w_reference"] == pytest.approx(image[true].mean(), rel=1e-5)
    text = run.report.read_text(encoding="utf-8").split('id="agreement"')[1].split("<section")[0]
    dice = [r["dice"] for r in rows]
    for title, value in (("Mean Dice of discs", np.mean(dice)), ("5th percentile", np.percentile(dice, 5))):
        assert cell_text(float(value)) in text.split(title)[1][:120], title


@pytest.mark.parametrize("kind", ["T1rho", "T2"])
def test_reference_masks_and_outlines_before_review_lie_on_the_echoes_as_people_moved(run, study, kind, monkeypatch):
    """Each echo voxel takes the label at the place that the known motion brings it to, by plain arithmetic."""
    echo = read_image(output(study, f"sub-02/anat/sub-02_{kind}map.nii.gz"))
    points = echo.geometry.index_to_world(np.moveaxis(np.indices(echo.array.shape), 0, -1)[..., ::-1])
    inverse = MOTION[kind].GetInverse()
    points = points @ np.array(inverse.GetMatrix()).reshape(3, 3).T + np.array(inverse.TransformPoint((0.0, 0.0, 0.0)))

    def mean_of(labels, level):
        index = np.floor(labels.geometry.world_to_index(points) + 0.5).astype(int)
        inside = np.all((index >= 0) & (index < labels.geometry.size), axis=-1)
        i, j, k = np.moveaxis(np.where(inside[..., None], index, 0), -1, 0)
        there = inside & (labels.array[k, j, i] == disc_value(level))
        return np.nanmean(echo.array[there])

    reference = read_image(study / "derivatives/rater/sub-02/anat/sub-02_dseg.nii.gz")
    for row in read_rows(output(study, "group/agreement.tsv")).rows:
        if row["participant_id"] == "sub-02":
            assert row[f"{kind}_reference"] == pytest.approx(mean_of(reference, row["level"]), rel=0.04), row["level"]
    # Where a review changes nothing, what is measured with the outlines before it is what was measured.
    context = PersonContext(Study(study), make_settings(**SETTINGS), person_records(Study(study), "sub-02"),
                            Study(study).person("sub-02"))
    found, seen = PersonContext.output_of, {}
    monkeypatch.setattr(PersonContext, "output_of", lambda self, step, ending: found(
        self, *(("segment", endings.DISCS) if step == "review" else (step, ending))))
    monkeypatch.setattr(Table, "write", lambda self, path: seen.update(rows=self.rows) or path)
    AUTOMATIC_STEP.run(context)
    monkeypatch.undo()
    measured = {(r["level"], r["region"]): r for r in read_rows(output(study, "group/regions.tsv")).rows
                if (r["participant_id"], r["map"]) == ("sub-02", kind)}
    for row in (r for r in seen["rows"] if r["map"] == kind):
        same = measured[row["level"], row["region"]]
        assert (row["n"], row["mean"]) == (same["n"], pytest.approx(same["mean"], rel=1e-5))


def test_three_routes_give_one_answer(run, study):
    """The study, the panel's job and `analyze` itself, each reading the files for itself: the same to the last digit.

    The table lists people in an order that is not that of their ids.
    """
    start_headless()
    from DiscAtlasLib import load_atlas
    from DiscStats import DiscStatsLogic

    atlas, table = load_atlas(shipped_atlas().parent), study / "participants.tsv"
    names = {code: name for name, code in PARTITION.items()}
    frame, files = read_participants(table), find_maps(output(study, ""))["T2"]
    frame = frame[frame.participant_id.isin(list(files))]
    assert frame.participant_id.tolist() != sorted(files)
    by_call = analyze({"T2": {p: read_image(f) for p, f in files.items()}}, atlas.labels, frame, "T2 ~ pfirrmann",
                      "pfirrmann", AnalysisSettings(n_permutations=120), levels=list(LEVELS), regions=atlas.regions,
                      region_names=names)
    by_panel = DiscStatsLogic().analysisJob(
        {"T2": files}, atlas.labels, frame, "T2 ~ pfirrmann", "pfirrmann", atlas.regions, region_names=names,
        n_permutations=120, levels=list(LEVELS)).run()
    compared = [name for name in by_call.maps if name.startswith("T2_pfirrmann_")]
    assert {"T2_pfirrmann_pfwe", "T2_pfirrmann_ptfce", "T2_pfirrmann_pextent", "T2_pfirrmann_pperm"} <= set(compared)
    for name in compared:
        for other in (by_panel.maps[name].array, stat(study, name)):
            np.testing.assert_array_equal(other, np.asarray(by_call.maps[name].array, np.float32), err_msg=name)
    assert by_panel.clusters.rows == by_call.clusters.rows
    written = read_rows(output(study, "group/analysis-grade/T2_clusters.tsv")).rows
    assert [r["p_extent"] for r in written] == pytest.approx([r["p_extent"] for r in by_call.clusters.rows], rel=1e-5)
    assert [r["region"] for r in written] == [r["region"] for r in by_call.clusters.rows]


@pytest.mark.parametrize("kind", ["T1rho", "T2"])
def test_true_relaxation_times_come_out(run, study, kind):
    rows = [r for r in read_rows(output(study, "group/regions.tsv")).rows
            if r["map"] == kind and r["region"] == "nucleus"]
    assert {(r["participant_id"], r["level"]) for r in rows} == {k for k in GRADE if k[0] in HAVE[kind]}
    for row in rows:
        # The true nucleus of the phantom is smaller than the region: the median is of it, the mean is not.
        truth = true_nucleus(kind, GRADE[row["participant_id"], row["level"]], row["level"])
        assert row["median"] == pytest.approx(truth, rel=0.08), row


def test_echoes_and_anatomy_meet_in_atlas_space(run, study):
    """People moved 6 mm and 5 degrees, otherwise for each series: the bright nucleus is in one place all the same."""
    images = {key: warped(study, "sub-01", key) for key in HAVE}
    for level in LEVELS:
        centers = {}
        for key, image in images.items():
            bright = 0.43 if key == "nT2w" else (true_nucleus(key, GRADE["sub-01", level], level) + ANNULUS[key]) / 2
            where = at_level(level) & (np.nan_to_num(image.array) > bright)
            centers[key] = image.geometry.index_to_world(np.argwhere(where)[:, ::-1]).mean(axis=0)
        for kind in ("T1rho", "T2"):
            # Echo voxels are 2 mm high; the inverse transform would be off by 12 mm.
            assert np.linalg.norm(centers[kind] - centers["nT2w"]) < 2.0, (kind, level)
