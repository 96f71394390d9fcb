"""Unusual discs: cut laterally, collapsed, in pieces, on flipped and oblique grids; and what must not matter."""

import numpy as np
import pytest
from unit.atlas.test_registration import L45, disc_image

from DiscAtlasLib.atlas import make_atlas
from DiscAtlasLib.disc_mask import lateral_edges
from DiscAtlasLib.parametric import LITERATURE, DiscSize
from DiscAtlasLib.registration import register_person
from DiscAtlasLib.shape import disc_shape
from DiscAtlasLib.transforms import grid_points
from DiscAtlasLib.warping import warp_to_atlas
from DiscRelaxometryLib.errors import Cancelled, RegistrationError
from DiscRelaxometryLib.image import Geometry, Image


@pytest.fixture(scope="module")
def atlas():
    return make_atlas(disc_image(spacing=(1.0, 1.0, 1.0)), {})


@pytest.fixture(scope="module")
def inside(atlas):
    return atlas.geometry.index_to_world(np.argwhere(atlas.labels.array == L45)[:, ::-1])


def crop_left_right(labels: Image, low: float, high: float) -> Image:
    """Return only the slices between two LR positions (mm)."""
    x = labels.geometry.origin[0] + labels.geometry.spacing[0] * np.arange(labels.geometry.size[0])
    keep = np.nonzero((x >= low) & (x <= high))[0]
    g = labels.geometry
    return Image(np.ascontiguousarray(labels.array[:, :, keep]),
                 Geometry((len(keep), *g.size[1:]), g.spacing, (x[keep[0]], *g.origin[1:]), g.direction))


def test_a_cut_disc_is_not_stretched(atlas, inside):
    whole = disc_image(spacing=(0.9, 0.6, 0.6))
    cut = crop_left_right(whole, -8.0, 8.0)
    result = register_person(cut, atlas)
    mapped = result.levels[L45].to_person(inside)
    # Shape and position are the atlas's own: every point should stay, also far outside the slab.
    seen = np.abs(inside[:, 0]) < 8
    assert np.linalg.norm(mapped - inside, axis=1)[seen].mean() < 0.5
    assert np.abs(mapped[~seen, 0] - inside[~seen, 0]).mean() < 2.0
    row = result.quality.rows[0]
    assert 0.3 < row["seen"] < 0.5 and "cut at the patient's right" in row["flags"]
    ones = warp_to_atlas(cut.like(np.ones(cut.array.shape, np.float32)), result).array[atlas.labels.array == L45]
    assert np.isnan(ones[np.abs(inside[:, 0]) > 9.5]).all() and (ones[np.abs(inside[:, 0]) < 7] == 1).all()


def test_an_off_center_slab_is_placed_by_the_canal(atlas, inside):
    whole = disc_image(spacing=(0.9, 0.6, 0.6))
    xyz = grid_points(whole.geometry)
    canal = ((xyz[..., 0] / 6) ** 2 + ((xyz[..., 1] - 22) / 3.5) ** 2) < 1
    labels = whole.like(np.where(canal, 2, whole.array).astype(np.uint8))
    cut = crop_left_right(labels, -7.0, 11.0)
    mapped = register_person(cut, atlas).levels[L45].to_person(inside)
    assert np.abs(mapped[:, 0] - inside[:, 0])[np.abs(inside[:, 0]) < 7].mean() < 0.8


def test_a_whole_disc_at_the_edge_is_not_called_cut():
    labels = disc_image(spacing=(4.4, 0.8, 0.8))
    xs = np.nonzero((labels.array > 0).any(axis=(0, 1)))[0]
    g = labels.geometry
    tight = Image(np.ascontiguousarray(labels.array[:, :, xs[0]:xs[-1] + 1]),
                  Geometry((len(xs), *g.size[1:]), g.spacing, g.index_to_world([xs[0], 0, 0]), g.direction))
    shape = disc_shape(tight, L45)
    assert shape.cut == (False, False)
    assert abs(shape.center[0]) < 0.3


def test_a_collapsed_disc_two_voxels_high(atlas):
    thin = disc_image(spacing=(1.0, 0.7, 0.7), size=DiscSize(1.6, 1.5, 1.3, 30.0))
    heights = (thin.array > 0).sum(axis=0)
    assert heights.max() <= 3
    result = register_person(thin, atlas)
    row = result.quality.rows[0]
    assert row["folding"] == 0 and row["dice"] > 0.8


@pytest.mark.parametrize("flip", [(0,), (1, 2)])
def test_flipped_axes_do_not_matter(atlas, inside, flip):
    labels = disc_image(lambda p: p - [1.0, 2.0, -1.5])
    plain = register_person(labels, atlas).levels[L45].to_person(inside)
    g = labels.geometry
    direction, origin, array = np.array(g.direction).reshape(3, 3), np.array(g.origin), labels.array
    for axis in flip:
        corner = np.zeros(3)
        corner[axis] = g.size[axis] - 1
        origin = origin + (g.index_to_world(corner) - np.array(g.origin))
        direction[:, axis] *= -1
        array = np.flip(array, 2 - axis)
    flipped = Image(np.ascontiguousarray(array), Geometry(g.size, g.spacing, origin, direction.ravel()))
    assert np.abs(register_person(flipped, atlas).levels[L45].to_person(inside) - plain).max() < 0.05


def test_an_oblique_grid_gives_the_same_disc(atlas, inside):
    c, s = np.cos(0.2), np.sin(0.2)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    extent, spacing = np.array([64.0, 56.0, 36.0]), np.array([1.2, 0.8, 0.8])
    geometry = Geometry(np.round(extent / spacing).astype(int), spacing, turn @ (-extent / 2), turn.ravel())
    from DiscAtlasLib.parametric import disc_level
    level = disc_level(grid_points(geometry) * [1, -1, 1], LITERATURE["L4-L5"])
    oblique = Image(((level < 0) * L45).astype(np.uint8), geometry)
    mapped = register_person(oblique, atlas).levels[L45].to_person(inside)
    assert np.linalg.norm(mapped - inside, axis=1).mean() < 0.5


@pytest.mark.parametrize("change, words", [
    (lambda a: np.zeros_like(a), "no such disc"),
    (lambda a: np.where(np.arange(a.size).reshape(a.shape) == a.size // 2, L45, 0).astype(a.dtype), "only 1 voxels"),
    (lambda a: a * (np.abs(np.arange(a.shape[1]) - a.shape[1] // 2) > 3)[None, :, None].astype(a.dtype),
     "2 separate pieces"),
])
def test_errors_name_person_and_level(atlas, change, words):
    labels = disc_image()
    with pytest.raises(RegistrationError, match=f"sub-07, L4-L5.*{words}"):
        register_person(labels.like(change(labels.array)), atlas, person="sub-07")


def test_small_crumbs_are_left_out_with_a_note(atlas):
    labels = disc_image()
    array = labels.array.copy()
    array[0, 0, :4] = L45
    result = register_person(labels.like(array), atlas)
    assert "left out (4 voxels)" in result.quality.rows[0]["flags"] and result.quality.rows[0]["dice"] > 0.95


def test_a_map_of_nan_stays_nan_and_intensity_changes_no_transform(atlas, inside):
    labels = disc_image(lambda p: p - [1.0, 2.0, -1.5])
    result = register_person(labels, atlas)
    nothing = labels.like(np.full(labels.array.shape, np.nan, np.float32))
    assert np.isnan(warp_to_atlas(nothing, result).array).all()
    # Registration takes labels only: metadata and any image beside them cannot reach it.
    again = register_person(Image(labels.array.copy(), labels.geometry, {"grade": 5}), atlas)
    assert np.array_equal(again.levels[L45].to_person.vectors, result.levels[L45].to_person.vectors)


def test_cancel_stops_between_units(atlas):
    def cancel(fraction, text):
        raise Cancelled

    with pytest.raises(Cancelled):
        register_person(disc_image(), atlas, progressCallback=cancel)


def test_left_stays_left(atlas, inside):
    """A disc thicker on the patient's left: the thick side of the atlas's map is the person's left."""
    labels = disc_image(lambda p: p / np.stack([np.ones(p.shape[:-1]), np.ones(p.shape[:-1]),
                                                1 + 0.012 * p[..., 0]], axis=-1))
    result = register_person(labels, atlas)
    x = grid_points(labels.geometry)[..., 0].astype(np.float32)
    warped = warp_to_atlas(labels.like(x), result).array[atlas.labels.array == L45]
    assert np.corrcoef(warped, inside[:, 0])[0, 1] > 0.99


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_cut_side_is_the_patients_whatever_the_grid(axis, sign):
    """Areas fall toward the first slice: the last one is cut, which is the left one where the axis runs to the left."""
    direction = np.zeros((3, 3))
    direction[[0, 1, 2], [axis, (axis + 1) % 3, (axis + 2) % 3]] = sign, 1, 1
    mask = (np.arange(6) < np.arange(1, 7)[:, None])[:, None, :] & np.ones((6, 4, 6), bool)
    mask = np.moveaxis(mask, 0, 2 - axis)
    edges = lateral_edges(mask, Geometry(mask.shape[::-1], (1.0, 1.0, 1.0), direction=direction.ravel()))
    assert {side: e["large"] for side, e in edges.items()} == {"left": sign > 0, "right": sign < 0}
