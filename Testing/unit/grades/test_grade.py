"""Estimated grades: a drawn spine with known discs, everything that must not be graded, and real people."""

import csv
import re
from dataclasses import replace

import numpy as np
import pytest
from support import shared_data
from support.grade_phantom import ANNULUS, CSF, HEIGHT, LENGTH, MARROW, MM, STEP, spine

from DiscRelaxometryLib.discs import load_engine
from DiscRelaxometryLib.errors import DiscRelaxometryError, GeometryError, SegmentationError
from DiscRelaxometryLib.grades import (
    COLUMNS,
    ESTIMATED,
    EXPECTED,
    GRADES,
    PICTURE,
    UNLIKE,
    describe_discs,
    disc_pictures,
    grade_discs,
    grade_summary,
    load_grader,
    median_grade,
)
from DiscRelaxometryLib.grades.features import disc_features
from DiscRelaxometryLib.grades.views import CANAL, SHAPE, SPACING, THIS_DISC, VERTEBRA, _references, disc_views
from DiscRelaxometryLib.image import Geometry, Image, read_image
from DiscRelaxometryLib.resources import resource_path


def features(image, labels):
    """Return each feature's values over the discs, caudal first, by name."""
    _, _, names, values = describe_discs(image, labels)
    return dict(zip(names, values.T))


@pytest.mark.parametrize("tilt", [0.0, 0.3, -0.4])
@pytest.mark.parametrize("slices", [1, 5])
def test_features_of_a_drawn_spine_are_what_was_drawn(tilt, slices):
    nuclei, heights = (40, 60, 90, 120, 150, 180), (6, 7, 8, 9, 10, 11)
    image, labels = spine(nuclei, heights, slices, tilt=tilt, blur=0)
    found = features(image, labels)
    assert found["nucleus"] == pytest.approx(np.array(nuclei) / CSF, abs=0.04)
    assert found["height_middle"] == pytest.approx(heights, abs=0.8)
    assert found["length"] == pytest.approx(LENGTH, abs=1.2)
    assert found["anterior"] == pytest.approx(ANNULUS / CSF, abs=0.06)
    assert found["marrow"] == pytest.approx(MARROW / CSF, abs=0.02)
    assert found["level"].tolist() == [0, 1, 2, 3, 4, 5]
    # Of the others: the brightest but for oneself, and the distance from it.
    assert found["nucleus_highest"] == pytest.approx(np.array([180] * 5 + [150]) / CSF, abs=0.04)
    assert found["nucleus_below_highest"] == pytest.approx(found["nucleus"] - found["nucleus_highest"], abs=0.01)
    assert found["canal_gap"] == pytest.approx(60 - LENGTH / 2 - 36, abs=1.5)


def test_a_view_is_upright_whatever_the_grid():
    image, labels = spine()
    views = disc_views(image, labels)
    view = views[2]
    rows, columns = np.nonzero(view.classes == THIS_DISC)
    assert np.ptp(columns) * SPACING == pytest.approx(LENGTH, abs=1.5) and np.ptp(rows) * SPACING < HEIGHT + 1
    assert np.nonzero(view.classes == CANAL)[1].min() > columns.max()
    assert (view.classes == VERTEBRA)[:rows.min()].any() and (view.classes == VERTEBRA)[rows.max() + 1:].any()
    g = image.geometry
    for axes in ((2, 1, 0), (1, 0, 2), (1, 2, 0)):
        # The same volume with its axes (x, y, z) permuted.
        turned = Geometry(*(tuple(np.array(v)[list(axes)]) for v in (g.size, g.spacing)), g.origin,
                          tuple(np.reshape(g.direction, (3, 3))[:, axes].ravel()))
        other = disc_views(*(Image(i.array.transpose([2 - a for a in axes[::-1]]), turned) for i in (image, labels)))
        assert [v.value for v in other] == [v.value for v in views]
        assert np.nanmax(np.abs(other[2].signal - view.signal)) < 1e-3


def test_darker_and_lower_discs_have_higher_grades():
    image, labels = spine((10, 25, 60, 110, 150, 190), (3, 5, 8, 10, 10, 11))
    table = grade_discs(image, labels)
    assert table.names == [c.name for c in COLUMNS]
    assert table["level"] == ["T12-L1", "L1-L2", "L2-L3", "L3-L4", "L4-L5", "L5-S1"]  # cranial to caudal
    expected = table[EXPECTED]
    assert expected[0] < expected[2] < expected[4] and expected[5] > 4.2 and expected[0] < 2.5
    for row in table.rows:
        p = np.array([row[f"pfirrmann_p{n}"] for n in range(1, GRADES + 1)])
        assert p.sum() == pytest.approx(1, abs=1e-5) and (p >= 0).all()
        assert row[EXPECTED] == pytest.approx(p @ np.arange(1, 6), abs=1e-5)
        assert row[ESTIMATED] == median_grade(p)


def test_the_scale_of_the_signal_does_not_matter():
    image, labels = spine((10, 25, 60, 110, 150, 190))
    first = grade_discs(image, labels)[EXPECTED]
    again = grade_discs(image.like(image.array * 7.5), labels)[EXPECTED]
    assert again == pytest.approx(first, abs=1e-3)


def test_fluid_is_the_bright_part_of_the_canal_and_marrow_that_of_the_bodies():
    """The canal holds nerves, too; arches behind it are no bodies, and what is outside the image counts nowhere."""
    random = np.random.default_rng(3)
    signal, classes = random.uniform(0, 1000, SHAPE).astype(np.float32), np.zeros(SHAPE, np.int8)
    classes[:, 100:120], classes[20:60, 20:80], classes[20:60, 140:160] = CANAL, VERTEBRA, VERTEBRA
    signal[:, 140:160] = 5000
    signal[:30] = np.nan
    csf, canal, marrow = _references(signal, classes)
    fluid, bone = signal[30:126, 102:118], signal[30:57, 23:77]
    assert (csf, canal) == (pytest.approx(np.quantile(fluid, 0.85)), pytest.approx(np.median(fluid)))
    assert marrow == pytest.approx(np.median(bone))
    classes[:, 100:120] = 0
    assert np.isnan(_references(signal, classes)[:2]).all()


def test_signal_is_in_units_of_the_fluid_beside_the_disc_or_else_of_the_persons():
    """A coil that is brighter below changes what is said of fluid and marrow alone."""
    views, gains = disc_views(*spine((10, 25, 60, 110, 150, 190))), (1.6, 1.4, 1.2, 1.0, 0.8, 0.7)
    names, plain = disc_features(views)
    uneven = [replace(v, signal=v.signal * g, **{n: getattr(v, n) * g for n in ("csf", "canal", "marrow")})
              for v, g in zip(views, gains)]
    kept = [n for n, name in enumerate(names) if name not in ("csf", "marrow")]
    assert disc_features(uneven)[1][:, kept] == pytest.approx(plain[:, kept], rel=1e-4, abs=1e-6, nan_ok=True)
    uneven[2] = replace(uneven[2], csf=np.nan)
    own = disc_features(uneven)[1][2, names.index("nucleus")] / plain[2, names.index("nucleus")]
    others = np.median([v.csf for n, v in enumerate(uneven) if n != 2])
    assert own == pytest.approx(views[2].csf * 1.2 / others, rel=1e-4)


def test_a_mirrored_slice_has_the_same_grades():
    """Stored from the other end, anterior and posterior as well as up and down: the same place in the world."""
    image, labels = spine((10, 25, 60, 110, 150, 190))
    g = image.geometry
    far = g.index_to_world(np.array([0, g.size[1] - 1, g.size[2] - 1]))
    turned = Geometry(g.size, g.spacing, tuple(far), (1, 0, 0, 0, 1, 0, 0, 0, -1))
    first, again = (grade_discs(*pair) for pair in ((image, labels), (Image(i.array[::-1, ::-1], turned)
                                                                      for i in (image, labels))))
    assert again["level"] == first["level"] and again[EXPECTED] == pytest.approx(first[EXPECTED], abs=1e-3)


def test_a_disc_has_its_grade_whatever_the_order():
    views, _, _, values = describe_discs(*spine((10, 25, 60, 110, 150, 190)))
    engine, order, pictures = load_engine(load_grader(), "onnx"), [3, 0, 5, 1, 4, 2], disc_pictures(views)
    all_at_once = engine.run(values, pictures)
    assert engine.run(values[order], pictures[order]) == pytest.approx(all_at_once[order], abs=1e-6)
    assert engine.run(values[2:3], pictures[2:3])[0] == pytest.approx(all_at_once[2], abs=1e-5)


def test_median_grade_is_the_middle_of_the_probabilities():
    p = np.array([[0.5, 0.5, 0, 0, 0], [0.4, 0.2, 0.4, 0, 0], [0, 0, 0, 0.1, 0.9]])
    assert median_grade(p).tolist() == [1, 2, 5]


def refuses(image, labels, words):
    with pytest.raises(SegmentationError, match=words) as caught:
        grade_discs(image, labels)
    assert caught.value.anchor == "grades"


def test_t1w_is_refused():
    # In T1w the canal is darker than fat marrow, whatever the discs look like.
    refuses(*spine((60,) * 6, canal=50.0), "no T2-weighted image")


def test_a_slice_beside_the_canal_is_refused():
    image, labels = spine()
    refuses(image, labels.like(np.where(labels.array == 2, 0, labels.array)), "canal is not seen")


@pytest.mark.parametrize(("discs", "refused"), [((15,), True), ((16,), True), ((11,), False), ((12, 11), False)])
def test_a_slice_that_leaves_the_canal_is_refused(discs, refused):
    """At the sacrum the sac ends; where it is not seen beside the upper discs, the slice passes beside it."""
    image, labels = spine()
    gone = labels.array.copy()
    for disc in discs:
        rows = np.argwhere(labels.array == disc)[:, 0]
        near = gone[max(0, rows.min() - 50):rows.max() + 50]  # as far as a disc's canal is looked for
        near[near == 2] = 0
    if refused:
        refuses(image, labels.like(gone), f"canal is not seen beside {'L1-L2' if discs == (15,) else 'T12-L1'}, or")
    else:
        assert sum("canal" in s for s in describe_discs(image, labels.like(gone))[1]) == len(discs)


def test_contrast_is_that_below_the_cord():
    """A cord darkens the canal of T2w, and a coil's falloff brightens it in T1w: L2-L3 and below decide."""
    image, labels = spine((150,) * 6)
    above = np.argwhere(labels.array == 14)[:, 0].max() + 8
    for side, words in ((slice(above, None), ""), (slice(None, above), "no T2-weighted image")):
        array = image.array.copy()
        array[side][labels.array[side] == 2] = 50
        if words:
            refuses(image.like(array), labels, words)
        else:
            assert len(grade_discs(image.like(array), labels)) == 6


def test_fewer_than_three_discs_are_refused():
    image, labels = spine()
    refuses(image, labels.like(np.where(labels.array > 12, 1, labels.array)), "has 2 named disc")


@pytest.mark.parametrize("change", [{11: 1}, {13: 1}, {13: 3}, {11: 10}])
def test_labels_that_do_not_run_up_from_the_sacrum_are_refused(change):
    image, labels = spine()
    array = labels.array.copy()
    for old, new in change.items():
        array[labels.array == old] = new
    refuses(image, labels.like(array), "do not run up from L5-S1")


@pytest.mark.parametrize("drawn", [{"marrow": 28.0, "fat": 80.0}, {"marrow": 44.0}, {"marrow": 60.0, "fat": 70.0}])
def test_a_fat_suppressed_image_is_refused(drawn):
    """Vertebrae darker than muscle or than fat lets expect, fat like muscle: each alone."""
    refuses(*spine((150,) * 6, **drawn), "Fat is suppressed")


@pytest.mark.parametrize("drawn", [{"marrow": 40.0, "fat": 85.0}, {"marrow": 56.0}])
def test_dark_vertebrae_and_dark_fat_alone_are_no_suppression(drawn):
    assert len(grade_discs(*spine((150,) * 6, **drawn))) == 6


@pytest.mark.parametrize("offset", [-20.0, 20.0, 2000.0])
def test_a_signal_with_an_offset_is_refused(offset):
    image, labels = spine()
    array = image.array + offset
    array[::9, ::23] = 0  # dead pixels
    array[5, 5:9, 0] = np.nan, 1, -1, np.inf
    refuses(image.like(array), labels, "it has an offset")
    # An offset of a few percent is what noise makes.
    assert len(grade_discs(image.like(image.array + np.sign(offset) * 8), labels)) == 6


@pytest.mark.parametrize("change", [lambda a: 0 * a, lambda a: a - 5000, lambda a: a * np.nan])
def test_an_image_without_signal_is_refused(change):
    image, labels = spine()
    refuses(image.like(change(image.array)), labels, "canal is not seen")


def test_vertebrae_that_are_not_segmented_are_refused():
    image, labels = spine()
    refuses(image, labels.like(np.where(labels.array == 1, 0, labels.array)), "no vertebral body")


def noise(array):
    return np.random.default_rng(0).normal(100, 20, array.shape)


@pytest.mark.parametrize("change", [noise, lambda a: 0 * a + 100 + 0.01 * noise(a)])
def test_an_image_that_shows_nothing_is_refused(change):
    image, labels = spine()
    refuses(image.like(change(image.array).astype(np.float32)), labels, "shows no spine")


def test_no_grade_for_what_looks_unlike_any_disc():
    """Discs of stripes from nothing to thrice the fluid's signal."""
    image, labels = spine()
    stripes = 3 * CSF * (np.indices(labels.array.shape).sum(0) % 4 < 2)
    found = statements(image.like(np.where(labels.array > 10, stripes, image.array).astype(np.float32)), labels)
    assert set(found.values()) == {UNLIKE}


def test_the_discs_that_the_grades_were_learned_from_are_near():
    """By the square of the distance: its mean over the training set is 1 but for the ridge, so that 2 is far."""
    model = load_grader()
    views, _, names, values = describe_discs(*spine((60, 80, 100, 110, 130, 150)))
    distance = load_engine(model, "onnx").run(values, disc_pictures(views))[:, -1]
    assert distance.min() > 0 and distance.max() < model.config.farthest == 2.0


def test_fewer_than_three_discs_that_can_be_judged_are_refused():
    image, labels = spine()
    array = image.array.copy()
    for n in range(4):  # cages in four discs of six
        rows = slice(int((30 + n * STEP) / MM), int((50 + n * STEP) / MM))
        array[rows][labels.array[rows] != 2] = 0
    refuses(image.like(array), labels, "Fewer than 3 discs of the image can be judged: There is a signal void")


def test_another_grid_is_refused():
    image, labels = spine()
    with pytest.raises(GeometryError):
        grade_discs(image, Image(labels.array[:-1], Geometry((1, 200, 432), (4.0, MM, MM), (0, 0, 0),
                                                             labels.geometry.direction)))


def statements(image, labels):
    table = grade_discs(image, labels)
    for row in table.rows:
        # A disc has an estimate or a statement, never both.
        assert (row["statement"] is None) == (row.get(ESTIMATED) is not None) == (row.get("pfirrmann_p1") is not None)
    return {r["level"]: r["statement"] for r in table.rows}


def test_a_disc_cut_by_the_edge_has_a_statement():
    image, labels = spine()
    last = int((40 + 5 * STEP) / MM)
    geometry = Geometry((1, 200, last), image.geometry.spacing, image.geometry.origin, image.geometry.direction)
    found = statements(Image(image.array[:last], geometry), Image(labels.array[:last], geometry))
    assert "edge" in found["T12-L1"] and not any(v for k, v in found.items() if k != "T12-L1")


def test_a_disc_beside_which_no_canal_is_seen_has_a_statement():
    image, labels = spine()
    array = labels.array.copy()
    array[:int(75 / MM)][labels.array[:int(75 / MM)] == 2] = 0
    found = statements(image, labels.like(array))
    assert "canal" in found["L5-S1"] and found["L2-L3"] is None


def test_an_implant_has_a_statement():
    image, labels = spine()
    array = image.array.copy()
    array[int(65 / MM):int(87 / MM)] = 0
    found = statements(image.like(array), labels)
    assert "signal void" in found["L4-L5"] and found["L2-L3"] is None


def test_a_speck_is_no_disc():
    image, labels = spine()
    array = labels.array.copy()
    speck = np.argwhere(array == 16)
    array[array == 16] = 1
    array[tuple(speck[len(speck) // 2 - 8:len(speck) // 2 + 8].T)] = 16
    found = statements(image, labels.like(array))
    assert "too small" in found["T12-L1"] and found["L5-S1"] is None


def test_missing_features_count_as_the_mean():
    torch = pytest.importorskip("torch")
    model = load_grader()
    network = model.build(model.config)
    from safetensors.torch import load_file

    network.load_state_dict(load_file(model.file("safetensors")))
    with torch.inference_mode():
        missing, picture = torch.full((1, len(model.config.features)), float("nan")), torch.rand(1, *PICTURE)
        network.eval()
        assert torch.equal(network(missing, picture), network(network.mean[None], picture))


def test_both_engines_say_the_same():
    pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")
    image, labels = spine((10, 25, 60, 110, 150, 190))
    one, two = (grade_discs(image, labels, engine) for engine in ("onnx", "torch"))
    for a, b in zip(one.rows, two.rows):
        first, second = ([v for v in row.values() if isinstance(v, float)] for row in (a, b))
        assert len(first) >= 6 and first == pytest.approx(second, abs=1e-5)


def test_the_weights_are_small_and_say_what_they_are():
    model = load_grader()
    assert sum(model.file(kind).stat().st_size for kind in ("onnx", "safetensors")) < 3_000_000
    assert "CC BY 4.0" in model.manifest["data"] and len(model.manifest["training"]["people"]["train"]) > 140
    image, labels = spine()
    assert tuple(disc_features(disc_views(image, labels))[0]) == model.config.features


def test_weights_of_other_features_are_refused():
    model = load_grader()
    other = replace(model, config=replace(model.config, features=model.config.features[::-1]))
    with pytest.raises(DiscRelaxometryError, match="other features"):
        grade_discs(*spine(), model=other)


def test_a_summary_has_one_row_per_disc_and_says_estimated():
    summary = grade_summary(grade_discs(*spine()))
    assert len(summary) == 6 and "estimated" in summary.name
    assert re.fullmatch(r"(\d\.\d\d ){4}\d\.\d\d", summary.rows[0]["probability of I to V"])


def test_graded_people_of_the_embedded_cohort():
    """Reference outlines and T2 SPACE, of people whose other images were trained on: most within one grade."""
    cohort = resource_path("SampleData/spider-cohort", "DiscStatsLib")
    with open(cohort / "participants.tsv", encoding="utf-8", newline="") as file:
        people = {r["participant_id"]: r for r in csv.DictReader(file, delimiter="\t")}
    from DiscRelaxometryLib.discs import project_labels

    errors = []
    for person in sorted(people)[::6]:
        image = read_image(cohort / person / "anat" / f"{person}_T2w.nii.gz")
        labels = project_labels(read_image(next(cohort.glob(f"derivatives/*/{person}/anat/*_dseg.nii.gz"))))[0]
        for row in grade_discs(image, labels).rows:
            read = people[person].get(f"pfirrmann_{row['level'].replace('-', '')}", "n/a")
            if read.isdigit() and row.get(ESTIMATED):
                errors.append(abs(int(read) - row[ESTIMATED]))
    assert len(errors) >= 24 and np.mean(np.array(errors) <= 1) >= 0.9 and np.mean(errors) < 0.6


@pytest.mark.shared_data
@pytest.mark.parametrize(("name", "words"), [("sub-012_T1w", "no T2-weighted"), ("sub-022_T1w", "no T2-weighted"),
                                             ("sub-133_T2w", "canal is not seen"), ("sub-253_T2w", "canal is not seen"),
                                             ("sub-035_T2w", "signal void")])
def test_images_that_must_not_be_graded(name, words):
    """T1w, beside the canal, a void: no spine is found, or the image or each disc is refused."""
    from DiscRelaxometryLib.discs import segment

    image = read_image(shared_data("spider_midsagittal") / f"{name}.nii.gz")
    result = segment(image, "onnx")
    if not result.found:
        assert words != "no T2-weighted" and "No spine" in result.reason
        return
    refuses(image, result.labels, words)
