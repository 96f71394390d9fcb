"""Each section of the report, recomputed by hand from the rows, records and maps that it is made of."""

from types import SimpleNamespace

import numpy as np
import pytest

from DiscRelaxometryLib.image import Geometry, Image
from DiscRelaxometryLib.labels import disc_value
from DiscRelaxometryLib.tables import Column, Table
from DiscStudyLib import make_settings
from DiscStudyLib.report import grades, group, methods, people, stats
from DiscStudyLib.report.page import Cards, Figure, Notes, TableBlock, cell_text
from DiscStudyLib.steps import report

GRID = Geometry((6, 1, 1), (2.0, 3.0, 4.0))
LABELS = Image(np.array([[[disc_value("L4-L5")] * 3 + [disc_value("L5-S1")] * 3]], np.uint8), GRID)


def record(notes=(), **facts):
    return SimpleNamespace(facts=facts, notes=list(notes))


def context(everyone=None, records=None, missing=None, **settings):
    """Return what a section sees, people in an order that is not that of their ids."""
    return SimpleNamespace(everyone=everyone or {}, records=records or {}, missing=missing or {},
                           settings=make_settings(**settings), study=SimpleNamespace(simulated=False, description={}),
                           output_of=lambda step, ending: None, needed=lambda step, ending: ending, written=[])


def tables(section) -> list[list[dict]]:
    return [b.table.rows for b in section.blocks if isinstance(b, TableBlock)]


@pytest.fixture
def drawn(monkeypatch):
    """Figures are not drawn; what would be is kept by the name of the function."""
    found = {}
    for module, name in ((people, "montage"), (people, "plot_quality"), (people, "plot_cohort"),
                         (group, "atlas_figure"), (group, "plot_groups")):
        monkeypatch.setattr(module, name, lambda *given, name=name: found.update({name: given}))
    for module in (people, group):
        monkeypatch.setattr(module, "save", lambda context, figure, folder, name: name)
    return found


def with_rows(monkeypatch, module, **rows):
    monkeypatch.setattr(module, "group_rows", lambda context, name: rows.get(name, []))


def test_the_head_of_the_page_counts_everyone_once(monkeypatch, tmp_path):
    made = context({"sub-02": {"segment": record()}, "sub-04": {}}, missing={"sub-03": "no spine", "sub-04": "nothing"},
                   formula="T2 ~ age")
    made.study.output, pages = tmp_path, []
    for name in ("people_sections", "group_sections"):
        monkeypatch.setattr(report, name, lambda *given: [])
    monkeypatch.setattr(report, "write_link", lambda study: None)
    monkeypatch.setattr(report, "write_report", lambda page, path: pages.append(page))
    report.report_step().run(made)
    assert pages[0].subtitle == "1 of 3 people. Model: T2 ~ age."


# ---------------------------------------------------------------- people

def test_the_overview_counts_people_results_and_discs(drawn, tmp_path):
    made = context({"sub-02": {"segment": record(levels=["L4-L5", "L5-S1"]), "maps-T2": record(), "atlas": record()},
                    "sub-01": {"segment": record(levels=["L5-S1"])}, "sub-04": {}},
                   missing={"sub-03": "segment: no spine", "sub-04": "nothing"})
    made.study.root = tmp_path
    section = people.overview(made, tmp_path)
    (cards,) = (b.items for b in section.blocks if isinstance(b, Cards))
    assert cards == [("People with results", "2", "of 4 in the study"), ("T2 maps", "1", "people"),
                     ("In atlas space", "1", "people"), ("Discs labelled", "3", "all visible levels")]
    assert tables(section) == [[{"person": "sub-03", "why": "segment: no spine"},
                                {"person": "sub-04", "why": "nothing"}]]


def test_the_pictured_cohort_is_who_has_results(drawn, tmp_path):
    made = context({"sub-02": {"segment": record()}, "sub-01": {}, "sub-03": {"segment": record()}}, formula="odi")
    made.study.root = tmp_path
    (tmp_path / "participants.tsv").touch()
    names = ("participant_id", "age", "odi", "pfirrmann_L4L5", "pfirrmann_L5S1", "site")
    rows = ("sub-01 90 99 5 5 A", "sub-02 40 10 2 n/a A", "sub-03 50 30 4 3 B", "sub-04 60 40 1 1 B")
    made.study.participants = Table("participants", [Column(n) for n in names],
                                    [dict(zip(names, row.split())) for row in rows])
    figure = people._cohort_figure(made, None)
    values, grades_of = drawn["plot_cohort"]
    assert values == {"odi": [10, 30], "age": [40, 50]} and figure.caption.startswith("The 2 people")
    np.testing.assert_array_equal(np.array([grades_of["L4-L5"], grades_of["L5-S1"]], float), [[2, 4], [np.nan, 3]])


def test_warnings_name_who_is_missing_and_count_what_is_not_shown(monkeypatch):
    monkeypatch.setattr(people, "trained_on", lambda study: set())
    notes = [f"{word} is odd." for word in "abcdefghijklmnopq"]
    made = context({"sub-02": {"segment": record(notes), "tile": record(["of no step that is told"])}},
                   missing={"sub-01": "no image"})
    (found,) = (b.items for b in people.warnings(made).blocks if isinstance(b, Notes))
    assert found[0] == ("error", "sub-01 is missing: no image")
    assert [text for _, text in found[1:15]] == [f"sub-02: {n}" for n in notes[:14]]
    assert found[15:] == [("note", "3 more notes are in the provenance files.")]


def test_only_people_that_the_network_segmented_can_have_been_in_its_training_set(monkeypatch):
    monkeypatch.setattr(people, "trained_on", lambda study: {"sub-01", "sub-02", "sub-09"})
    everyone = {"sub-03": {"segment": record(source="cnn")}, "sub-02": {"segment": record(source="existing")},
                "sub-01": {"segment": record(source="cnn")}, "sub-09": {}}
    assert people.training_overlap(context(everyone)).startswith("1 of 2 people were in the training set")
    del everyone["sub-01"]
    assert people.training_overlap(context(everyone)) == ""


def test_flagged_people_are_pictured_first_and_the_others_are_counted(drawn, monkeypatch):
    monkeypatch.setattr(people, "MAX_TILES", 3)
    monkeypatch.setattr(people, "_read_png", lambda path: path)
    monkeypatch.setattr(people, "reviewed_discs", lambda settings, person, *more: [
        SimpleNamespace(flags=()), SimpleNamespace(flags=("look",) if person in ("sub-04", "sub-05") else ())])
    made = context({p: {} for p in ("sub-03", "sub-05", "sub-01", "sub-04", "sub-02", "sub-06")})
    made.of = lambda person: SimpleNamespace(output_of=lambda step, ending: None if person == "sub-06" else person)
    section = people.segmentation(made, None)
    assert drawn["montage"] == ([("sub-04", "sub-04", True), ("sub-05", "sub-05", True), ("sub-01", "sub-01", False)],)
    (figure,) = (b for b in section.blocks if isinstance(b, Figure))
    assert figure.caption == "Segmentation of 3 people. 2 more are in the people's 'figures' folders."


def test_map_quality_is_of_whole_lumbar_discs(monkeypatch):
    values = {("sub-02", "L4-L5"): (90.0, 0.5), ("sub-02", "L5-S1"): (70.0, 0.0), ("sub-01", "L4-L5"): (50.0, 0.1)}
    rows = [{"participant_id": p, "level": level, "map": "T2", "region": "whole", "mean": mean, "failed": failed}
            for (p, level), (mean, failed) in values.items()]
    rows += [rows[0] | {"region": "nucleus", "mean": 1e3}, rows[0] | {"level": "T12-L1", "mean": 1e3, "failed": 1.0}]
    with_rows(monkeypatch, people, regions=rows)
    ((row,),) = tables(people.map_quality(context(), None))
    assert row == {"map": "T2", "people": 2, "discs": 3, "mean": 70.0, "SD between discs": 20.0,
                   "failed": pytest.approx(20.0), "worst disc": 50.0}


@pytest.mark.parametrize("means, expected", [([40.0, np.nan], (40, np.nan)), ([np.nan], (np.nan, np.nan))])
def test_map_quality_of_few_values_has_no_spread_and_of_no_lumbar_disc_is_not_told(monkeypatch, means, expected):
    rows = [{"participant_id": f"sub-{n}", "level": "L4-L5", "map": "T2", "region": "whole", "mean": mean,
             "failed": 0.5} for n, mean in enumerate(means)]
    with_rows(monkeypatch, people, regions=[*rows, rows[0] | {"level": "T12-L1", "map": "T1rho"}])
    ((row,),) = tables(people.map_quality(context(), None))
    np.testing.assert_array_equal([row["mean"], row["SD between discs"]], expected)
    assert (row["map"], row["discs"], row["worst disc"]) == ("T2", len(means), 50)
    with_rows(monkeypatch, people, regions=[r | {"level": "T12-L1"} for r in rows])
    assert people.map_quality(context(), None) is None


def test_the_worst_registration_is_the_least_overlap_and_the_largest_distance(drawn, monkeypatch):
    rows = [{"participant_id": f"sub-{n}", "level": "L4-L5", "dice": dice, "surface_mean": distance,
             "jacobian_min": least, "jacobian_max": most, "flags": flags}
            for n, dice, distance, least, most, flags in (
                (3, 0.9, 0.3, 0.5, 1.5, ""), (1, 0.7, 0.9, -0.2, 4.0, "cut (left)"),
                (2, 0.95, 0.2, 0.8, 1.2, "cut (right); 3 folded voxels"))]
    with_rows(monkeypatch, people, registration=[*rows, rows[0] | {"level": "T12-L1", "dice": 0.0}])
    monkeypatch.setattr(people, "serious_flags", lambda row: [f for f in people._flags(row) if "folded" in f])
    by_level, flags, serious = tables(people.registration(context(), None))
    assert by_level == [{"level": "L4-L5", "discs": 3, "Dice": "0.9 (0.7)", "surface distance": "0.3 (0.9)",
                         "smallest Jacobian": f"0.5 ({cell_text(-0.2)})", "largest Jacobian": "1.5 (4)"}]
    assert flags == [{"flag": "cut", "discs": 2}, {"flag": "folded voxels", "discs": 1}]
    assert serious == [{"person": "sub-2", "level": "L4-L5", "flag": "3 folded voxels"}]


# ---------------------------------------------------------------- group

def test_mean_maps_are_shown_where_half_of_the_people_have_a_value(drawn, monkeypatch):
    images = {"mean": [10.0, 20, 30, 40, 50, 60], "sd": [1.0, 2, 3, 4, 5, 6], "n": [9.0, 4, 3, 8, 1, 5]}
    monkeypatch.setattr(group, "read_image", lambda name: Image(np.array([[images[name.split("-")[1].split("_")[0]]]],
                                                                         np.float32), GRID))
    monkeypatch.setattr(group, "maps_in_atlas", lambda context: ["T2"])
    monkeypatch.setattr(group, "context_atlas", lambda context: SimpleNamespace(labels=LABELS))
    (figure,) = group.mean_maps(context(records={"means": record()}), None).blocks
    (mean, mean_look), (sd, sd_look) = drawn["atlas_figure"][0].values()
    nan, kept = np.nan, [10.0, 20, 40, 60]
    np.testing.assert_array_equal(mean.array.ravel(), [10, 20, nan, 40, nan, 60])
    np.testing.assert_array_equal(sd.array.ravel(), [1, 2, nan, 4, nan, 6])
    assert (mean_look.low, mean_look.high) == pytest.approx(tuple(np.percentile(kept, (2, 98))))
    assert (sd_look.low, sd_look.high) == (0, pytest.approx(np.percentile([1, 2, 4, 6], 98)))
    assert mean_look.legend == "ms" and "of 9 people" in figure.caption


def volumes(monkeypatch, **values):
    """Files of the group, by the part of their name between ``stat-`` and the ending."""
    monkeypatch.setattr(group, "read_image", lambda name: Image(np.array(
        [[values[name.removeprefix("stat-").removesuffix(".nii.gz").replace("-", "")]]], np.float32), GRID))
    monkeypatch.setattr(group, "context_atlas", lambda context: SimpleNamespace(labels=LABELS))


def test_average_maps_of_groups_have_one_window_and_half_of_their_own_people(drawn, monkeypatch):
    volumes(monkeypatch, mean_group1_T2=[10, 20, 30, 40, 50, 60], n_group1_T2=[4, 2, 1, 0, 4, 4],
            mean_group2_T2=[70, 80, 90, 100, 110, 120], n_group2_T2=[1, 1, 1, 0, 1, 1])
    groups = [{"group": "women", "number": 1, "people": list("abcd")}, {"group": "men", "number": 2, "people": ["e"]}]
    (figure,) = group.group_means(context(records={"group-means": record(T2=groups)}), None).blocks
    women, men = (drawn["atlas_figure"][0][n] for n in ("women (n = 4)", "men (n = 1)"))
    nan, window = np.nan, np.percentile([10, 20, 50, 60, 70, 80, 90, 110, 120], (2, 98))
    np.testing.assert_array_equal(women[0].array.ravel(), [10, 20, nan, nan, 50, 60])
    np.testing.assert_array_equal(men[0].array.ravel(), [70, 80, 90, nan, 110, 120])
    assert women[1] == men[1] and (men[1].low, men[1].high) == pytest.approx(tuple(window)) and men[1].legend == "ms"
    assert "women (n = 4), men (n = 1)" in figure.caption


def test_repeatability_shows_each_measure_with_its_own_unit(drawn, monkeypatch):
    volumes(monkeypatch, wsd_T2=[1, 2, 3, 4, 5, 6], cv_T2=[.1, .2, .3, .4, .5, .6])
    monkeypatch.setattr(group, "maps_in_atlas", lambda context: ["T2"])
    rows = [{"region": n, "wsd": float(len(n))} for n in ("whole", "nucleus", "elsewhere")]
    monkeypatch.setattr(group, "read_rows", lambda path: SimpleNamespace(rows=list(rows)))
    made = context({n: {} for n in ("p-1", "p-2", "q-1")}, records={"repeatability": record(T2=7)})
    made.output_of = lambda step, ending: ending
    made.study.participants = Table("participants", [Column("participant_id")], [
        {"participant_id": f"{p}-{v}", "participant": p, "session": v} for p, v in ("q1", "p2", "p1", "q2")])
    visits, figure, table = group.repeated(made, None).blocks
    assert visits.text == "Visits: q 1; p 2, 1."
    (sd, sd_look), (cv, cv_look) = drawn["atlas_figure"][0].values()
    assert list(drawn["atlas_figure"][0]) == ["Within-participant SD", "Coefficient of variation"]
    assert (sd.array.max(), sd_look.legend, cv.array.max(), cv_look.legend) == (6, "ms", pytest.approx(0.6), "")
    assert (sd_look.low, sd_look.high) == (0, pytest.approx(np.percentile(range(1, 7), 98)))
    assert cv_look.high == pytest.approx(np.percentile(cv.array, 98)) and "visits of 7" in figure.caption
    assert [r["region"] for r in table.table.rows] == ["whole", "nucleus"]


def test_missed_discs_count_as_missed_and_are_not_measured(monkeypatch):
    plots, nan = [], np.nan
    monkeypatch.setattr(group, "training_overlap", lambda context: "")
    monkeypatch.setattr(group, "plot_agreement", lambda *given: plots.append(given))
    monkeypatch.setattr(group, "save", lambda *given: None)
    rows = [{"participant_id": f"sub-{n}", "level": level, "dice": dice, "volume": own, "volume_reference": true}
            for n, (level, dice, own, true) in enumerate((
                ("L4-L5", 0.9, 5.0, 4.0), ("L5-S1", 0.8, 6.0, 7.0), ("L4-L5", 0.0, 3.0, 9.0), ("L4-L5", 0.7, 8.0, 8.5),
                ("L5-S1", 0.6, nan, 4.0), ("L5-S1", 0.5, 4.0, nan), ("L4-L5", 0.4, 7.0, 6.0),
                ("T12-L1", 0.1, 1.0, 1.0)))]
    with_rows(monkeypatch, group, agreement=rows)
    cards, figure, _ = group.agreement(context(), None).blocks
    assert [c[1] for c in cards.items] == [cell_text(3.9 / 7), cell_text(float(np.percentile(
        [0.9, 0.8, 0.0, 0.7, 0.6, 0.5, 0.4], 5))), "1"] and cards.items[0][2] == "7 discs"
    ((first, second, levels, names, unit, _),) = plots
    assert (first.tolist(), second.tolist()) == ([5, 6, 8, 7], [4, 7, 8.5, 6])
    assert (levels, names, unit) == (["L4-L5", "L5-S1", "L4-L5", "L4-L5"], ("Automatic", "Reference"), "cm3")
    assert figure.caption.startswith("Disc volume of 4 discs")


def test_region_means_have_the_spread_between_people_who_have_a_value(monkeypatch):
    nan = float("nan")
    rows = [{"level": level, "region": region, "mean": mean} for level, region, mean in (
        ("L5-S1", "whole", 40.0), ("L5-S1", "nucleus", nan), ("L4-L5", "whole", 60.0), ("L4-L5", "whole", 70.0),
        ("L4-L5", "whole", 80.0), ("L4-L5", "whole", nan), ("L4-L5", "nucleus", 100.0), ("L4-L5", "nucleus", 120.0),
        ("L3-L4", "whole", 30.0), ("L3-L4", "whole", nan), ("L3-L4", "nucleus", nan), ("L3-L4", "nucleus", nan))]
    table = group._region_table(rows, "T2")
    assert [(c.name, c.unit) for c in table.columns[1:]] == [("discs", ""), ("whole", "ms"), ("nucleus", "ms")]
    none = cell_text(nan)
    assert table.rows == [
        {"level": "L3-L4", "discs": 1, "whole": cell_text(30.0), "nucleus": none},
        {"level": "L4-L5", "discs": 3, "whole": f"{cell_text(70.0)} ({cell_text(10.0)})",
         "nucleus": f"{cell_text(110.0)} ({cell_text(200 ** 0.5)})"},
        {"level": "L5-S1", "discs": 1, "whole": cell_text(40.0), "nucleus": none}]


def test_mixed_models_are_shown_as_they_were_written(monkeypatch):
    row = {"map": "T2", "region": "anterior_annulus", "term": "age", "estimate": -0.5, "low": -0.75, "high": -0.25,
           "p": 0.002, "discs": 12.0, "people": 4.0, "icc": 0.3, "notes": "at the boundary"}
    monkeypatch.setattr(group, "read_rows", lambda path: SimpleNamespace(rows=[row | {"map": "T1rho", "p": 1.0}, row]))
    made = context()
    made.output_of = lambda step, ending: ending
    block, _, note = group._models(made, "T2")
    assert block.table.rows == [{"region": "anterior annulus", "term": "age", "change": -0.5, "p": 0.002,
                                 "95 % limits": f"{cell_text(-0.75)} to {cell_text(-0.25)}", "discs": 12, "people": 4,
                                 "between people": pytest.approx(30)}]
    assert note.text == "anterior annulus: at the boundary"


def test_bias_is_in_percent_of_the_reference():
    second = np.array([10.0, 20, 40, 70])
    line, table = group.agreement_summary(second * 1.25, second, "ms")
    assert line.splitlines()[1] == "bias +25.0 %"
    assert [r["measure"] for r in table.rows][0] == "bias" and table.rows[0]["value"] == pytest.approx(8.75)


def test_points_of_the_region_figure_are_of_each_discs_own_grade(drawn, monkeypatch):
    table = Table("participants", [Column(n) for n in ("participant_id", "pfirrmann_L4L5", "pfirrmann_L5S1")],
                  [{"participant_id": "sub-2", "pfirrmann_L4L5": "3", "pfirrmann_L5S1": "5"},
                   {"participant_id": "sub-1", "pfirrmann_L4L5": "5", "pfirrmann_L5S1": "n/a"}])
    monkeypatch.setattr(group, "participants_of", lambda context: table)
    rows = [{"participant_id": p, "level": level, "region": "nucleus", "mean": mean} for p, level, mean in (
        ("sub-1", "L4-L5", 50.0), ("sub-1", "L5-S1", 1.0), ("sub-2", "L5-S1", 55.0), ("sub-2", "L4-L5", 90.0))]
    group._region_figure(context(formula="pfirrmann"), rows, "T2", None)
    assert drawn["plot_groups"] == ({"nucleus": {"V": [50.0, 55.0], "III": [90.0]}}, "Pfirrmann grade", "T2 [ms]")


# ---------------------------------------------------------------- grades, statistics, methods

def test_discs_without_an_estimate_are_counted(monkeypatch):
    rows = [{"participant_id": f"sub-{n}", "level": "L4-L5", "pfirrmann_estimated": g}
            for n, g in enumerate((3.0, float("nan"), 3.0, 5.0, float("nan")))]
    with_rows(monkeypatch, grades, grades=[*rows, rows[0] | {"level": "T12-L1"}])
    monkeypatch.setattr(grades, "trained_on", lambda *given: set())
    made = context()
    made.study.participants = Table("participants", [Column("participant_id")], [])
    ((row,),) = tables(grades.grades(made))
    assert row == {"level": "L4-L5", "I": 0, "II": 0, "III": 2, "IV": 0, "V": 1, "no estimate": 2}


def test_agreement_within_one_grade_counts_equal_grades_too():
    table = Table("participants", [Column("participant_id"), Column("pfirrmann_L4L5")],
                  [{"participant_id": f"sub-{n}", "pfirrmann_L4L5": str(g)}
                   for n, g in ((2, 1), (1, 3), (4, 5), (3, 2))])
    rows = [{"participant_id": f"sub-{n}", "level": "L4-L5", "pfirrmann_estimated": float(g)}
            for n, g in ((1, 4), (2, 1), (3, 4), (4, 5))]
    block, *_ = grades._agreement(rows, table, set())
    assert {k: block.table.rows[0][k] for k in ("n", "discs", "same grade", "within one", "mean error")} == {
        "n": 4, "discs": 4, "same grade": 50, "within one": 75, "mean error": 0.75}


CLUSTERS = [{"quantity": "T2", "contrast": "age", "level": level, "p_extent": extent, "p_mass": mass,
             "peak_p_fwe": peak, "peak_p_tfce": "n/a"} for level, extent, mass, peak in (
    ("L5-S1", 0.5, 0.4, 0.9), ("L4-L5", 0.6, 0.7, 0.01), ("L4-L5", 0.3, 0.02, 0.8))]


def test_clusters_are_ranked_by_their_smallest_corrected_p():
    ranked = stats._readable(Table("clusters", [Column("level"), Column("p_mass"), Column("hidden")], CLUSTERS))
    assert ranked.rows == [CLUSTERS[1], CLUSTERS[2], CLUSTERS[0]] and ranked.names == ["level", "p_mass"]


def test_the_sensitivity_table_has_the_smallest_corrected_p_of_a_levels_clusters(monkeypatch):
    monkeypatch.setattr(stats, "context_atlas", lambda context: SimpleNamespace(labels=LABELS))
    monkeypatch.setattr(stats, "read_stats", lambda *given: {"r": Image(np.full((1, 1, 6), 0.5, np.float32), GRID)})
    other = [CLUSTERS[0] | {"contrast": "sex", "p_mass": 0.001}]
    monkeypatch.setattr(stats, "read_rows", lambda path: SimpleNamespace(
        rows=[*CLUSTERS, *other] if path == "all" else []))
    both = [{"stats": [], "clusters": name, "levels": {"L4-L5": n, "L5-S1": n - 1}}
            for name, n in (("all", 9), ("some", 7))]
    rows = stats._beside(context(sensitivity="age < 60"), ["one", "two"], "T2", "age", both).rows
    assert [(r["level"], r["analysis"], r["people"], r["smallest cluster p"]) for r in rows] == [
        ("L4-L5", "everyone", 9, 0.02), ("L4-L5", "age < 60", 7, None),
        ("L5-S1", "everyone", 8, 0.4), ("L5-S1", "age < 60", 6, None)]


def paragraphs(monkeypatch, everyone, **settings) -> str:
    monkeypatch.setattr(methods, "review_text", lambda context: "")
    return " ".join(methods._paragraphs(context(everyone, **settings), ""))


def test_the_methods_tell_whose_outlines_they_are_and_what_people_were_brought_to(monkeypatch):
    shipped, template = "brought to the shipped atlas", "brought to a template built from these people"
    network, own = "shipped convolutional network", "Existing segmentations"
    one = {"sub-1": {"segment": record(source="cnn"), "atlas": record()}}
    text = paragraphs(monkeypatch, one)
    assert network in text and shipped in text and own not in text and template not in text
    text = paragraphs(monkeypatch, {"sub-1": {"segment": record(source="existing"), "atlas": record()}},
                      template="build")
    assert own in text and template in text and network not in text and shipped not in text


def test_the_methods_name_times_and_model_of_each_map(monkeypatch):
    text = paragraphs(monkeypatch, {
        "sub-1": {"maps-T1rho": record(times_ms=[0, 10, 40.5], model="mono3"),
                  "maps-T2": record(times_ms=[10, 20], model="epg")},
        "sub-2": {"maps-T1rho": record(times_ms=[0, 20], model="mono3")}})
    assert "T1rho maps: a mono-exponential with offset" in text and "spin-lock times 0/10/40.5; 0/20 ms" in text
    assert "T2 maps: an extended-phase-graph model" in text and "echo times 10/20 ms" in text


@pytest.mark.parametrize("facts, said", [
    ({"n": 9, "levels": {"L4-L5": 9, "L5-S1": 9}}, "n = 9"),
    ({"n": 9, "discs": 17, "levels": {}}, "n = 9 with 17 discs"),
    ({"n": 9, "levels": {"L4-L5": 9, "L5-S1": 8}}, "n = 9 at L4-L5, 8 at L5-S1")])
def test_the_people_of_an_analysis_are_told_by_level_where_they_differ(facts, said):
    assert methods.people_text(facts) == said
