"""DiscAtlasLogic, headless, on the real person: registration, map and labels there and back, words of errors."""

import numpy as np
import pytest

from DiscRelaxometryLib.headless import start_headless

start_headless()

import DiscAtlas as module  # noqa: E402
from DiscAtlas import DiscAtlasLogic  # noqa: E402
from DiscAtlasLib.cohort import checkerboard, load_cohort  # noqa: E402
from DiscRelaxometryLib import mrml  # noqa: E402
from DiscRelaxometryLib.errors import RegistrationError, SegmentationError  # noqa: E402
from DiscRelaxometryLib.image import Geometry, Image  # noqa: E402


@pytest.fixture
def atlas_person(slicer):
    """The shipped atlas as a person whose discs are moved by a known rigid motion."""
    from DiscAtlasLib.atlas import load_atlas
    try:
        atlas = load_atlas()
    except Exception as error:
        pytest.skip(f"no shipped atlas: {error}")
    moved = Geometry(atlas.geometry.size, atlas.geometry.spacing, np.add(atlas.geometry.origin, (5, -7, 11)),
                     atlas.geometry.direction)
    return mrml.segmentation_from_labels(Image(atlas.labels.array, moved), "sub-01"), moved, atlas


def test_a_moved_atlas_registers_with_itself(slicer, atlas_person, tmp_path):
    segmentation, moved, atlas = atlas_person
    logic, seen = DiscAtlasLogic(), []
    result = logic.register([segmentation], outputFolder=tmp_path, levels=["L4-L5"],
                            progressCallback=lambda f, t: seen.append((f, t)))
    assert set(result.registrations) == {"sub-01"} and seen[-1][0] == 1.0
    assert any("L4-L5" in text for _, text in seen)
    assert all(row["dice"] > 0.97 for row in result.quality.rows)
    # A map that is each voxel's world position x returns that position, moved by the known motion.
    k, j, i = np.indices(moved.shape)
    x = moved.index_to_world(np.stack([i, j, k], -1))[..., 0].astype(np.float32)
    node = mrml.volume_from_image(Image(x, moved), "x")
    warped = mrml.image_from_volume(logic.warpToAtlas(node, result, "sub-01"))
    inside = np.isfinite(warped.array)
    assert np.array_equal(inside, atlas.labels.array == 12)
    here = atlas.geometry.index_to_world(np.argwhere(inside)[:, ::-1])[:, 0]
    assert np.abs(warped.array[inside] - here - 5).mean() < 0.3
    overlay = mrml.labels_from_segmentation(logic.overlay(result, "sub-01", segmentation))
    own = mrml.labels_from_segmentation(segmentation)
    a, b = overlay.array == 12, own.array == 12
    assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.95
    again = load_cohort(tmp_path)
    np.testing.assert_allclose(mrml.image_from_volume(logic.warpToAtlas(node, again, "sub-01")).array[inside],
                               warped.array[inside], atol=0.05)


def test_words_of_errors(slicer, tmp_path):
    logic = DiscAtlasLogic()
    with pytest.raises(RegistrationError, match="at least one person"):
        logic.register({})
    with pytest.raises(SegmentationError, match="no segmentation"):
        logic.loadPeople(tmp_path)
    with pytest.raises(RegistrationError, match="no atlas folder"):
        logic.registerJob({}, "folder", tmp_path)
        logic.register({"a": mrml.segmentation_from_labels(_two_blocks(), "a")}, "folder", tmp_path)


def _two_blocks() -> Image:
    labels = np.zeros((8, 20, 20), np.uint8)
    labels[2:6, 4:8, 4:16], labels[2:6, 12:16, 4:16] = 12, 11
    return Image(labels, Geometry((20, 20, 8)))


def test_checkerboard_takes_turns():
    geometry = Geometry((8, 8, 8), (1, 2, 3))
    a, b = (Image(np.full((8, 8, 8), v, np.uint8), geometry) for v in (1, 2))
    board = checkerboard(a, b, 6.0).array
    assert board[0, 0, 0] == 1 and board[2, 0, 0] == 2 and board[0, 3, 0] == 2 and board[0, 0, 6] == 2
    assert board[2, 3, 0] == 1 and abs((board == 1).mean() - 0.5) < 0.1


@pytest.mark.slow
def test_the_modules_self_test_passes(slicer):
    from DiscAtlasLib.atlas import load_atlas
    try:
        load_atlas()
    except Exception as error:
        pytest.skip(f"no shipped atlas: {error}")
    module.DiscAtlasTest().runTest()
