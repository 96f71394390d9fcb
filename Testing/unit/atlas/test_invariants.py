"""What holds for any disc: missing values, folds, mirror images, moments, and templates of whole and of cut discs."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage
from unit.atlas.test_bad_input import crop_left_right
from unit.atlas.test_registration import L45, disc_image

from DiscAtlasLib import quality, sample, shape, transforms, warp_from_atlas, warp_to_atlas
from DiscAtlasLib.atlas import make_atlas
from DiscAtlasLib.coordinates import Correspondence, Slab, _centered, _pushes, _smoothed, match
from DiscAtlasLib.levelset import LevelSet, Refinement
from DiscAtlasLib.parametric import DiscSize
from DiscAtlasLib.quality import assess
from DiscAtlasLib.registration import level_transform, register_person
from DiscAtlasLib.shape import disc_shape, polynomial, quartic
from DiscAtlasLib.template import build_level
from DiscAtlasLib.transforms import DisplacementField, LevelTransform, Match, grid_points, steepest, surrounding_grid
from DiscRelaxometryLib.errors import RegistrationError
from DiscRelaxometryLib.image import Geometry, Image

MIRROR = np.array([-1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def atlas():
    return make_atlas(disc_image(spacing=(1.0, 1.0, 1.0)), {})


def lopsided(p):
    """A disc thicker at the patient's left, and shifted."""
    p = p - [0.8, 2.0, -1.5]
    return p / np.stack([np.ones(p.shape[:-1]), np.ones(p.shape[:-1]), 1 + 0.012 * p[..., 0]], axis=-1)


@pytest.fixture(scope="module")
def registered(atlas):
    return register_person(disc_image(lopsided), atlas)


# ------------------------------------------------------------ missing values

@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_a_constant_map_with_holes_is_the_constant_or_missing_after_any_warp(atlas, registered, seed, share):
    rng = np.random.default_rng(seed)
    labels = disc_image(lopsided)
    for grid, warp in ((labels, lambda m: warp_to_atlas(m, registered)),
                       (atlas.labels, lambda m: warp_from_atlas(m, registered, labels.geometry)),
                       (labels, lambda m: warp_to_atlas(m, registered, "nearest"))):
        values = np.full(grid.array.shape, 100.0, np.float32)
        values[rng.random(values.shape) < share] = np.nan
        found = warp(grid.like(values)).array
        known = found[np.isfinite(found)]
        assert known.size and np.abs(known - 100).max() < 1e-3


def test_the_interpolation_that_was_asked_for_is_used(atlas, registered):
    image = atlas.labels.like(np.random.default_rng(5).choice([10, 20], atlas.labels.array.shape).astype(np.uint8))
    grid = disc_image(lopsided).geometry
    names = {how: warp_from_atlas(image, registered, grid, how).array for how in (None, "label", "nearest")}
    maps = {how: warp_from_atlas(image.like(image.array.astype(np.float32)), registered, grid, how).array
            for how in (None, "linear", "nearest")}
    np.testing.assert_array_equal(names[None], names["label"])
    np.testing.assert_array_equal(maps[None], maps["linear"])
    assert set(np.unique(names["nearest"])) <= {0, 10, 20} and (names["nearest"] != names["label"]).any()
    some = np.isfinite(maps["nearest"])
    assert set(np.unique(maps["nearest"][some])) == {10, 20} and len(np.unique(maps["linear"][some])) > 100
    with pytest.raises(RegistrationError, match="choose linear, nearest or label"):
        warp_from_atlas(image, registered, grid, "cubic")


def test_a_value_needs_half_of_its_weight_from_voxels_that_are_known():
    values = np.full((3, 3, 3), 7.0, np.float32)
    values[:, :, 0] = np.nan
    image = Image(values, Geometry((3, 3, 3)))
    x = np.array([0.0, 0.4, 0.49, 0.51, 0.6, 1.0])
    found = sample(image, np.stack([x, np.ones(6), np.ones(6)], axis=-1))
    assert np.array_equal(np.isfinite(found), x > 0.5) and np.allclose(found[x > 0.5], 7)


# ------------------------------------------------------------ folds

def test_a_field_that_folds_is_called_folding(atlas):
    """Its Jacobian determinant is known in closed form: 1 + du/dx."""
    steep, width = 2.5, 6.0
    shape = atlas.shape(L45)

    def fold(p):
        local = p - shape.center
        bump = np.exp(-(local**2).sum(-1, keepdims=True) / width**2)
        return p - steep * bump * local * [1, 0, 0]

    local = shape.inside - shape.center
    determinant = 1 - steep * np.exp(-(local**2).sum(-1) / width**2) * (1 - 2 * local[:, 0]**2 / width**2)
    grid = surrounding_grid(shape.inside)
    field = DisplacementField.sampled(fold, grid)
    row = assess(LevelTransform(L45, field, DisplacementField.sampled(lambda p: p, grid)), shape, shape)
    assert row["folding"] == pytest.approx((determinant <= 0).mean(), rel=0.1) and row["folding"] > 0.01
    assert row["jacobian_min"] == pytest.approx(determinant.min(), abs=0.15) and row["jacobian_min"] < -1
    assert "folding" in row["flags"] and "forward and inverse disagree" in row["flags"]
    # Nor is it stored so: what is saved does not fold in the disc.
    better = assess(LevelTransform(L45, field.unfolded(shape.inside), field), shape, shape)
    assert better["folding"] == 0 and better["jacobian_min"] > 0


def test_quality_is_of_the_distances_between_surfaces_and_flags_what_is_beyond_its_limit(atlas, monkeypatch):
    shape, distance = atlas.shape(L45), np.random.default_rng(3).normal(0, 1.2, 400)
    grid = surrounding_grid(shape.inside)
    field, back = (DisplacementField.sampled(lambda p, by=by: p + by, grid) for by in ([0, 0, 0.5], [1.0, 0, -0.5]))
    monkeypatch.setattr(quality, "_surface_distance", lambda transform, fixed, moving: distance)
    marks = shape.center[None], shape.center[None] + [3, 0, 4.5]
    row = assess(LevelTransform(L45, field, back), shape, shape, marks)
    assert row["surface_mean"] == pytest.approx(np.abs(distance).mean())
    assert row["surface_95"] == pytest.approx(np.sort(np.abs(distance))[379], rel=0.03)
    assert (row["inverse_error"], row["landmark_error"]) == (pytest.approx(1.0, abs=1e-3), pytest.approx(5.0, abs=1e-3))
    assert row["seen"] == 1 and row["jacobian_max"] == pytest.approx(1, abs=1e-3)
    # Overlap is that of the voxels as they were drawn, whatever surface was laid through them.
    smoother = replace(shape, surface=shape.surface + 0.8)
    assert assess(LevelTransform(L45, field, back), shape, smoother)["dice"] == row["dice"] < 1
    assert row["flags"].split(" (")[0] == "surfaces far apart" and "forward and inverse disagree" in row["flags"]
    for column, comparison, limit, words in quality.THRESHOLDS:
        beyond, within = (limit + (d if comparison == ">" else -d) for d in (1e-6, -1e-6))
        assert words in quality.flags_of({column: beyond})[0] and quality.flags_of({column: within}) == []
        assert quality.flags_of({column: limit}) == []
    good = {"dice": 0.95, "surface_95": 1, "folding": 0, "jacobian_min": 0.5, "jacobian_max": 2, "inverse_error": 0.05,
            "seen": 1}
    bad = {"dice": 0.5, "surface_95": 4, "folding": 0.01, "jacobian_min": 0.01, "jacobian_max": 40, "inverse_error": 1,
           "seen": 0.5}
    assert quality.flags_of(good) == [] and len(quality.flags_of(bad)) == len(bad) == len(quality.THRESHOLDS)


def test_the_spline_displacement_on_a_grid_is_that_of_its_points():
    rng = np.random.default_rng(4)
    refinement = Refinement(np.array([-50.0, -40.0, -30.0]), 20.0, rng.normal(size=(3, 6, 5, 4)))
    grid = grid_points(Geometry((9, 12, 14), (1.25,) * 3, (-9.0, -7.0, -6.0), (0, 0, 1, 0, 1, 0, 1, 0, 0)))
    np.testing.assert_allclose(refinement.on_grid(grid), refinement.displacement(grid), atol=1e-12)


@pytest.mark.parametrize("compiled", [True, False])
def test_horner_gives_the_sum_of_the_polynomials_terms(compiled, monkeypatch):
    if not compiled:
        monkeypatch.setattr(shape, "kernel_if_numba", lambda function: None)
    u, v = np.random.default_rng(5).uniform(-1.5, 1.5, (2, 4, 10))
    coefficients = np.random.default_rng(6).normal(size=15)
    np.testing.assert_allclose(quartic(coefficients, u, v), polynomial(u, v) @ coefficients, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sigma", [0.9, 2.4, 6.4])
def test_compiled_smoothing_and_steepness_are_those_of_scipy_and_numpy(sigma):
    """Also where the Gaussian is longer than the volume."""
    volumes = np.random.default_rng(8).normal(size=(4, 9, 30, 12))
    expected = [ndimage.gaussian_filter(v, sigma, mode="constant", truncate=3) for v in volumes]
    np.testing.assert_allclose(_smoothed(volumes, sigma), expected, atol=1e-14)
    slopes = [sum(np.abs(s) for s in np.gradient(v, 1.25)).max() for v in volumes]
    for number in range(4):
        assert steepest(volumes[number:], 1.25) == pytest.approx(max(slopes[number:]), rel=1e-12)


@pytest.mark.parametrize("compiled", [True, False])
def test_jacobians_of_a_curved_map_follow_numpys_differences_on_an_oblique_grid(compiled, monkeypatch):
    if not compiled:
        monkeypatch.setattr(transforms, "kernel_if_numba", lambda function: None)
    rng = np.random.default_rng(7)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    field = DisplacementField(rng.normal(size=(7, 8, 9, 3)), Geometry((9, 8, 7), (1.0, 1.5, 0.7), (0, 0, 0),
                                                                      turn.ravel()))
    slopes = np.stack([np.stack(np.gradient(field.vectors[..., a], 0.7, 1.5, 1.0)[::-1], -1) for a in range(3)], -2)
    np.testing.assert_allclose(field.jacobian(), np.linalg.det(slopes @ turn.T + np.eye(3)), rtol=1e-9)


def test_an_affine_map_has_its_determinant_and_its_inverse_on_an_oblique_grid():
    rng = np.random.default_rng(3)
    matrix, shift = np.eye(3) + rng.uniform(-0.4, 0.4, (3, 3)), np.array([1.0, -2.0, 0.5])
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    grid = Geometry((24, 22, 20), (1.0, 1.5, 1.2), -turn @ [12, 16, 12], turn.ravel())
    field = DisplacementField.sampled(lambda p: p @ matrix.T + shift, grid)
    np.testing.assert_allclose(field.jacobian(), np.linalg.det(matrix), rtol=1e-4)
    points = rng.uniform(-3, 3, (50, 3))
    back = field.inverse()
    np.testing.assert_allclose(back(field(points)), points, atol=0.01)


def test_what_is_stored_does_not_fold_in_the_disc_whatever_a_backend_finds(atlas):
    shape = atlas.shape(L45)

    def fold(p):
        local = p - shape.center
        return p - 1.5 * np.exp(-(local**2).sum(-1, keepdims=True) / 25) * local * [1, 0, 0]

    assert (DisplacementField.sampled(fold, surrounding_grid(shape.inside)).jacobian() <= 0).any()
    for inverse in (None, lambda p: p):
        stored = level_transform(shape, shape, Match(fold, inverse))
        row = assess(stored, shape, shape)
        assert row["folding"] == 0 and row["jacobian_min"] > 0 and row["inverse_error"] < 0.1


def test_surfaces_of_a_cut_disc_push_nothing_along_left_right(atlas):
    fixed, moving = atlas.shape(L45), disc_shape(crop_left_right(disc_image(lopsided, (0.9, 0.6, 0.6)), -9, 9), L45)
    levels = [LevelSet(s, Slab(s, fixed.half[:2]), np.array([*fixed.half[:2], 12.0])) for s in (fixed, moving)]
    # Points lifted off the surface, so that parts of it have none near them and pull.
    points = levels[0].surface * [0.5, 0.7, 1.0]
    pushes = {lateral: _pushes(*levels, points, 2.0, lateral)[1][:, 0] for lateral in (True, False)}
    assert np.abs(pushes[True]).max() > 0.1 and np.all(pushes[False] == 0)


def test_a_larger_disc_expands_as_the_sizes_say(atlas):
    """Determinants are those of sizes: a disc 1.2 times as large in every direction has 1.2^3 the volume."""
    larger = disc_image(lambda p: p / 1.2, spacing=(1.0, 0.8, 0.8), width=70.0)
    result = register_person(larger, atlas)
    field = result.levels[L45].to_person
    inside = atlas.shape(L45).inside
    index = tuple(np.rint(field.index(inside)).astype(int))
    assert field.jacobian()[index].mean() == pytest.approx(1.2**3, rel=0.03)


# ------------------------------------------------------------ mirror images, moments

def test_a_mirror_image_has_the_mirrored_map(atlas):
    labels = disc_image(lopsided, spacing=(1.2, 0.9, 0.9))
    mirrored = labels.like(np.ascontiguousarray(labels.array[:, :, ::-1]))
    points = atlas.shape(L45).inside
    there = match(atlas.shape(L45), disc_shape(labels, L45)).forward(points)
    back = match(atlas.shape(L45), disc_shape(mirrored, L45)).forward(points * MIRROR) * MIRROR
    difference = np.linalg.norm(there - back, axis=1)
    assert difference.mean() < 0.15 and difference.max() < 0.6


def test_centering_gives_the_mapped_disc_the_lateral_moments_of_the_person():
    """Mean and SD of the mapped volume, recomputed in world space with a Jacobian by finite differences."""
    fixed, moving = disc_shape(disc_image(spacing=(1.0, 1.0, 1.0)), L45), disc_shape(disc_image(lopsided), L45)
    slab_f, slab_m = Slab.of(fixed), Slab.of(moving)
    scale = np.array([*slab_f.half, 12.0])
    level = LevelSet(fixed, slab_f, scale)
    x = level.grid[..., 0]
    vectors = np.zeros_like(level.grid)
    vectors[..., 0] = 1.5 + 0.006 * x**2 - 0.05 * x
    vectors[..., 2] = level.grid[..., 2] * 0.012 * x
    field = DisplacementField(vectors, level.geometry)

    def moments(correspondence):
        grid = surrounding_grid(fixed.inside, step=1.0)
        there = correspondence.forward(grid_points(grid))
        volume = DisplacementField(there - grid_points(grid), grid).jacobian()
        inside = fixed.surface_at(grid_points(grid)) < 0
        lateral = moving.to_frame(there[inside])[:, 0]
        mean = np.average(lateral, weights=volume[inside])
        return mean, np.sqrt(np.average((lateral - mean)**2, weights=volume[inside]))

    before = moments(Correspondence(slab_f, slab_m, scale, field))
    mean, spread = moments(Correspondence(slab_f, slab_m, scale, _centered(fixed, slab_f, slab_m, scale, field)))
    assert abs(before[0]) > 1
    assert abs(mean) < 0.2 * abs(before[0]) and spread == pytest.approx(moving.half[0] / 2, rel=0.03)


# ------------------------------------------------------------ templates

SIZES = (DiscSize(16, 12, 9, 29), DiscSize(18, 13, 10, 35))


def test_a_symmetric_template_of_whole_discs_has_the_mean_width_depth_and_height():
    shapes = [disc_shape(disc_image(spacing=(1.2, 0.8, 0.8), size=s, width=66.0), L45) for s in SIZES]
    level = build_level(L45, shapes, 3, symmetric=True)
    np.testing.assert_allclose(level.shape().half, np.mean([s.half for s in shapes], axis=0), rtol=0.02)
    assert np.array_equal(level.distance, level.distance[..., ::-1])


def test_a_template_of_people_cut_on_one_side_has_the_width_of_the_whole():
    whole = disc_image(spacing=(1.0, 0.8, 0.8), width=64.0)
    y = grid_points(whole.geometry)
    canal = ((y[..., 0] / 6) ** 2 + ((y[..., 1] - 22) / 3.5) ** 2) < 1
    labels = whole.like(np.where(canal, 2, whole.array).astype(np.uint8))
    right, left = (disc_shape(crop_left_right(labels, *edges), L45) for edges in ((-12.0, 40.0), (-40.0, 12.0)))
    assert right.cut == (True, False) and left.cut == (False, True)
    shape = build_level(L45, [right, left], 3).shape()
    expected = disc_shape(whole, L45)
    assert shape.cut == (False, False)
    np.testing.assert_allclose(shape.half, expected.half, rtol=0.03)
    assert abs(shape.center[0]) < 0.5
