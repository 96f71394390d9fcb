"""From pixels to named discs: the embedded person, and images that show no spine."""

from types import SimpleNamespace

import numpy as np
import pytest
from support import shared_data

from DiscRelaxometryLib.discs.engine import Model, load_model
from DiscRelaxometryLib.discs.inference import Prediction
from DiscRelaxometryLib.discs.network import NetworkConfig
from DiscRelaxometryLib.discs.segment import assemble, canal_sides, segment, without_islands
from DiscRelaxometryLib.errors import SegmentationError
from DiscRelaxometryLib.image import Geometry, Image, read_image
from DiscRelaxometryLib.resources import resource_path

pytest.importorskip("onnxruntime")
EXPECTED = {"L5-S1": 0.932, "L4-L5": 0.951, "L3-L4": 0.951, "L2-L3": 0.953,
            "L1-L2": 0.94, "T12-L1": 0.934, "T11-T12": 0.934, "T10-T11": 0.761}


def discs_of(array):
    return (array >= 11) & (array < 30)


@pytest.fixture(scope="module")
def sample():
    return read_image(resource_path("SampleData/spider-sub-078_T2w.nii.gz"))


@pytest.fixture(scope="module")
def central(sample):
    """Return seven slices of the embedded person: enough to name levels, quick to segment."""
    first = sample.geometry.size[0] // 2 - 3
    array = np.ascontiguousarray(sample.array[..., first:first + 7])
    origin = tuple(sample.geometry.index_to_world((first, 0, 0)))
    return Image(array, Geometry(array.shape[::-1], sample.geometry.spacing, origin, sample.geometry.direction))


@pytest.fixture(scope="module")
def result(central):
    return segment(central, "onnx", flip=False)


def test_embedded_person_is_segmented_and_named(sample, central, result):
    reference = read_image(resource_path("SampleData/spider-sub-078_dseg.nii.gz")).array
    first = sample.geometry.size[0] // 2 - 3
    truth = reference[..., first:first + 7]
    given = result.labels.array
    both = discs_of(given) & discs_of(truth)
    assert 2 * both.sum() / (discs_of(given).sum() + discs_of(truth).sum()) > 0.88
    assert np.mean(given[both] == truth[both]) > 0.99
    assert result.found and result.certain and [d.value for d in result.discs][:5] == [11, 12, 13, 14, 15]


def test_every_disc_has_a_confidence(result):
    assert [q.value for q in result.quality] == sorted(d.value for d in result.discs)
    assert all(0 < q.confidence <= 1 and 0 < q.expected_dice <= 1 for q in result.quality)
    assert result.confidence.array.min() > 0 and result.confidence.array.max() <= 1 + 1e-6
    assert len(result.quality_table().rows) == len(result.discs)


def test_axis_order_and_handedness_change_nothing(central, result):
    array = np.ascontiguousarray(np.flip(central.array.transpose(2, 0, 1), 1))
    geometry = central.geometry
    matrix = np.array(geometry.direction).reshape(3, 3)
    # Axes (k, j, i) become (i, k, j), and the old k is flipped: the first voxel is the old last one along k.
    origin = geometry.index_to_world((0, 0, geometry.size[2] - 1))
    direction = np.stack([matrix[:, 1], -matrix[:, 2], matrix[:, 0]], 1)
    spacing = [geometry.spacing[a] for a in (1, 2, 0)]
    turned = segment(Image(array, Geometry(array.shape[::-1], spacing, origin, direction.ravel())), "onnx", flip=False)
    back = np.flip(turned.labels.array, 1).transpose(1, 2, 0)
    # Voxels at equal distance from two vertebrae take either name.
    assert np.mean(back == result.labels.array) > 0.999
    assert np.array_equal(discs_of(back), discs_of(result.labels.array))


def test_upside_down_header_never_gives_certain_levels(central):
    size, spacing = central.geometry.size, central.geometry.spacing
    turned = Image(central.array, Geometry(size, spacing, (0, 0, 0), (-1, 0, 0, 0, 1, 0, 0, 0, -1)))
    refused = segment(turned, "onnx", flip=False)
    assert not refused.found or (not refused.certain and any("assumption" in f for f in refused.flags))


def test_noise_gives_an_empty_segmentation_with_a_reason(central):
    noise = np.random.default_rng(0).rayleigh(50, (128, 128, 5)).astype(np.float32)
    refused = segment(Image(noise, Geometry((5, 128, 128), (4, 1, 1))), "onnx", flip=False)
    assert not refused.found and not refused.labels.array.any()
    assert refused.flags[-1] == refused.reason and "sagittal" in refused.reason
    assert refused.discs == [] and refused.quality == [] and not refused.certain


@pytest.mark.shared_data
@pytest.mark.parametrize("part", ["brain_se_qmrlab/echoes.nii.gz", "knee_mese_ge_dicom"])
@pytest.mark.parametrize("sagittal", [False, True])
def test_other_body_parts_never_give_a_confident_label(part, sagittal):
    from DiscRelaxometryLib.echo.read import read_echo_series

    series = read_echo_series(shared_data("relaxometry") / part, kind="T2")
    geometry = series.geometry
    if sagittal:  # as if the header said so
        geometry = Geometry(geometry.size, geometry.spacing, (0, 0, 0), (0, 0, 1, 1, 0, 0, 0, -1, 0))
    try:
        refused = segment(Image(series.echoes[0], geometry), "onnx", flip=False)
    except SegmentationError:
        return
    assert not refused.found or all(q.review for q in refused.quality)


def prediction(classes, probability):
    """Return a prediction that gives every voxel of a class one probability."""
    half = np.zeros(classes.shape, np.float16)
    disc = np.where(classes == 3, probability, 0).astype(np.float16)
    return Prediction(classes, np.full(classes.shape, probability, np.float32), disc, half, half, half)


def spine(canal: bool = True):
    """Return classes of a straight spine, 1.5 mm voxels (k up, j to posterior, i to the left), three discs."""
    classes = np.zeros((110, 60, 24), np.uint8)
    for level in range(4):
        bottom = 4 + 26 * level
        classes[bottom:bottom + 20, 12:36] = 1
        if level < 3:
            classes[bottom + 20:bottom + 26, 12:36] = 3
    if canal:
        classes[:, 38:48, 8:16] = 2
    return classes, Image(np.zeros(classes.shape, np.float32), Geometry(classes.shape[::-1], (1.5, 1.5, 1.5)))


@pytest.mark.parametrize("canal, probability, word", [(True, 0.97, ""), (False, 0.97, "no spinal canal"),
                                                      (True, 0.55, "not sure of any disc")])
def test_a_spine_needs_a_canal_and_a_sure_disc(canal, probability, word):
    classes, image = spine(canal)
    model = Model(None, {"name": "test", "version": "0", "review_threshold": 0.9}, NetworkConfig(), 1.0)
    found = assemble(image, prediction(classes, probability), [], model, "fake (cpu)")
    assert found.found == (word == "") and word in found.reason
    assert len(found.discs) == (3 if word == "" else 0)


@pytest.mark.parametrize("columns, sides", [(slice(38, 48), (1, 0)), (slice(0, 8), (0, 1)), (slice(55, 60), (0, 0))])
def test_canal_counts_at_the_height_of_a_disc_and_within_reach(columns, sides):
    classes, image = spine(canal=False)
    canal = np.zeros(classes.shape, bool)
    canal[70:86, columns, 8:16] = True  # beside the uppermost disc alone
    discs = [SimpleNamespace(centroid=image.geometry.index_to_world((11.5, 23.5, 26.5 + 26 * n))) for n in range(3)]
    assert canal_sides(SimpleNamespace(discs=discs), canal, image) == sides


def test_canal_in_front_of_the_discs_means_a_wrong_header():
    classes, image = spine()
    turned = Image(image.array, Geometry(image.geometry.size, (1.5, 1.5, 1.5), (0, 0, 0), (1, 0, 0, 0, -1, 0, 0, 0, 1)))
    model = Model(None, {"name": "test", "version": "0"}, NetworkConfig(), 1.0)
    found = assemble(turned, prediction(classes, 0.97), [], model, "fake (cpu)")
    assert not found.found and "orientation must be wrong" in found.reason and not found.labels.array.any()


def test_islands_far_from_the_spine_are_left_out_and_reported():
    classes, image = spine()
    classes[40:52, 59:60] = 2  # skin, 18 mm behind the canal
    classes[40:44, 50:54, 10:14] = 1  # a spinous process
    model = Model(None, {"name": "test", "version": "0"}, NetworkConfig(), 1.0)
    left, removed = without_islands(classes, image)
    assert not left[:, 59].any() and removed == pytest.approx(12 * 24 * 1.5**3)
    assert (left[:, :59] == classes[:, :59]).all()
    classes[40:60, 59:60] = 2
    found = assemble(image, prediction(classes, 0.97), [], model, "fake (cpu)")
    assert any("1.6 cm3" in f for f in found.flags) and found.found


def test_a_chain_of_separate_pieces_is_the_spine():
    classes = np.zeros((300, 40, 1), np.uint8)
    for bottom in range(0, 300, 30):  # bodies and discs with seams between them, and no canal
        classes[bottom:bottom + 20, 5:30], classes[bottom + 22:bottom + 28, 5:30] = 1, 3
    image = Image(np.zeros(classes.shape, np.float32), Geometry(classes.shape[::-1], (4.0, 1.0, 1.0)))
    left, removed = without_islands(classes, image)
    assert removed == 0 and np.array_equal(left, classes)
    classes[140:220] = 0  # two bodies and discs missed: what lies beyond is no longer beside the spine
    assert without_islands(classes, image)[1] > 0


def test_odd_discs_are_flagged_with_the_reason():
    _, image = spine()
    model = Model(None, {"name": "test", "version": "0", "review_threshold": 0.01}, NetworkConfig(), 1.0)
    plain = assemble(image, prediction(spine()[0], 0.97), [], model, "fake")
    assert [q.why for q in plain.quality] == [""] * 3 and not plain.review
    torn = spine()[0]
    torn[50:56, 22:25] = 0
    found = assemble(image, prediction(torn, 0.97), [], model, "fake")
    why = {q.value: q.why for q in found.quality}
    assert "joined from separate parts" in why.pop(found.discs[1].value) and set(why.values()) == {""}
    assert found.review == [found.discs[1].name] and any(found.discs[1].name in f for f in found.flags)
    assert found.quality_table()["why"] == [q.why for q in found.quality]


def test_the_review_threshold_is_the_weights_own():
    classes, image = spine()
    shown = []
    for threshold in (0.01, 0.999, None):
        manifest = {"name": "test", "version": "0", **({} if threshold is None else {"review_threshold": threshold})}
        found = assemble(image, prediction(classes, 0.97), [], Model(None, manifest, NetworkConfig(), 1.0), "fake")
        shown.append(len(found.review))
        assert any("unsure" in flag for flag in found.flags) == bool(found.review)
    assert shown[:2] == [0, 3]


def test_embedded_persons_expected_dice(result):
    # Recorded: a temperature or threshold that is ignored changes these.
    assert {q.name: round(q.expected_dice, 3) for q in result.quality} == pytest.approx(EXPECTED, abs=0.0015)
    assert [q.review for q in result.quality] == [
        q.expected_dice < load_model().manifest["review_threshold"] for q in result.quality]
