"""Registration by disc coordinates: known deformations, round trips, bad input."""

import numpy as np
import pytest
import SimpleITK as sitk
from support.atlas_phantom import literature_labels

from DiscAtlasLib.atlas import load_atlas, make_atlas, save_atlas
from DiscAtlasLib.parametric import LITERATURE, DiscSize, disc_level
from DiscAtlasLib.registration import (
    Backend,
    load_registration,
    register_discs,
    register_people,
    register_person,
    save_registration,
)
from DiscAtlasLib.shape import signed_distance, without_staircase
from DiscAtlasLib.transforms import DisplacementField, grid_points, read_transform, write_transform
from DiscAtlasLib.warping import warp_from_atlas, warp_to_atlas
from DiscRelaxometryLib.errors import RegistrationError
from DiscRelaxometryLib.image import Geometry, Image
from DiscRelaxometryLib.labels import disc_value

L45 = disc_value("L4-L5")


def disc_image(point_map=lambda p: p, spacing=(1.5, 0.9, 0.9), value=L45, size=LITERATURE["L4-L5"], width=60.0):
    """Return a label image of one disc whose points are taken back to the undeformed disc by `point_map`."""
    extent = np.array([width, 52.0, 34.0])
    geometry = Geometry(np.round(extent / spacing).astype(int), spacing, -extent / 2 + np.array(spacing) / 2)
    xyz = point_map(grid_points(geometry)) * [1, -1, 1]
    return Image(((disc_level(xyz, size) < 0) * value).astype(np.uint8), geometry)


@pytest.fixture(scope="module")
def atlas():
    return make_atlas(disc_image(spacing=(1.0, 1.0, 1.0)), {"name": "one disc"})


@pytest.fixture(scope="module")
def smooth(atlas):
    """A person whose disc is the atlas's, displaced by a known smooth map (atlas to person)."""
    def inverse(p):
        return p - forward_displacement(p - forward_displacement(p))

    def forward_displacement(p):
        u = np.stack([2.0 + 1.0 * np.sin(p[..., 1] / 14), -3.0 + 0.8 * np.cos(p[..., 0] / 15),
                      2.0 + 0.8 * np.sin(p[..., 0] / 16 + 0.5) + 0.06 * p[..., 1]], axis=-1)
        return u

    return disc_image(inverse), lambda p: p + forward_displacement(p)


def test_known_smooth_deformation_is_found(atlas, smooth):
    labels, truth = smooth
    result = register_person(labels, atlas, person="sub-01")
    row = result.quality.rows[0]
    inside = atlas.geometry.index_to_world(np.argwhere(atlas.labels.array == L45)[:, ::-1])
    error = np.linalg.norm(result.levels[L45].to_person(inside) - truth(inside), axis=1)
    assert error.mean() < 1.5
    assert row["dice"] > 0.95 and row["folding"] == 0 and row["surface_mean"] < 0.4
    assert row["flags"] == ""


def test_round_trip_is_below_a_fifth_of_a_voxel(atlas, smooth):
    result = register_person(smooth[0], atlas)
    inside = atlas.geometry.index_to_world(np.argwhere(atlas.labels.array == L45)[:, ::-1])
    there = result.levels[L45].to_person(inside)
    back = result.levels[L45].to_atlas(there)
    assert np.linalg.norm(back - inside, axis=1).mean() < 0.2 * 0.9


def test_map_is_warped_once_and_nan_stays_nan(atlas, smooth):
    labels, _ = smooth
    result = register_person(labels, atlas)
    points = grid_points(labels.geometry)
    values = (points[..., 0] + 2 * points[..., 1]).astype(np.float32)
    values[points[..., 0] > 15] = np.nan
    warped = warp_to_atlas(Image(values, labels.geometry), result)
    disc = atlas.labels.array == L45
    assert np.isnan(warped.array[~disc]).all()
    there = result.levels[L45].to_person(grid_points(atlas.geometry)[disc])
    expected = there[:, 0] + 2 * there[:, 1]
    found = warped.array[disc]
    assert np.isnan(found[there[:, 0] > 16.5]).all()
    good = there[:, 0] < 12
    np.testing.assert_allclose(found[good], expected[good], atol=0.02)


def test_labels_come_back_onto_the_person(atlas, smooth):
    labels, _ = smooth
    result = register_person(labels, atlas)
    back = warp_from_atlas(atlas.labels, result, labels.geometry)
    both = ((back.array == L45) & (labels.array == L45)).sum()
    assert 2 * both / ((back.array == L45).sum() + (labels.array == L45).sum()) > 0.95


def test_saved_registration_reads_back(atlas, smooth, tmp_path):
    result = register_person(smooth[0], atlas, person="sub-01")
    save_registration(result, tmp_path / "sub-01")
    again = load_registration(tmp_path / "sub-01", atlas)
    np.testing.assert_allclose(again.levels[L45].to_person.vectors, result.levels[L45].to_person.vectors, atol=1e-6)
    field = read_transform(tmp_path / "sub-01" / "L4L5_to_person.h5")
    point = atlas.shape(L45).center
    np.testing.assert_allclose(field.to_sitk().TransformPoint(point), result.levels[L45].to_person(point), atol=1e-3)


@pytest.mark.parametrize("suffix", [".h5", ".tfm"])
def test_itk_reads_the_transforms_as_they_map(atlas, tmp_path, suffix):
    grid = Geometry((9, 8, 7), (2.0, 2.0, 2.0), (-8, -7, 20))
    field = DisplacementField.sampled(lambda p: p + np.stack([0.2 * p[..., 1], 1 - 0.1 * p[..., 0], 0 * p[..., 2]], -1),
                                      grid)
    read = sitk.ReadTransform(str(write_transform(field, tmp_path / f"field{suffix}")))
    point = (1.0, -2.0, 25.0)
    np.testing.assert_allclose(read.TransformPoint(point), field(np.array(point)), atol=1e-5)


def test_a_cut_disc_is_missing_in_the_atlas_after_reading_back_too(atlas, tmp_path):
    whole = disc_image(spacing=(0.9, 0.6, 0.6))
    x = grid_points(whole.geometry)[0, 0, :, 0]
    # The volume goes on, but the observer stopped: nothing but the mask tells where the disc was seen.
    labels = whole.like(whole.array * (np.abs(x) < 8).astype(np.uint8))
    ones = whole.like(np.ones(whole.array.shape, np.float32))
    result = register_person(labels, atlas, person="sub-01")
    save_registration(result, tmp_path / "sub-01")
    warped, again = (warp_to_atlas(ones, r).array for r in (result, load_registration(tmp_path / "sub-01", atlas)))
    assert np.array_equal(np.isnan(warped), np.isnan(again))
    assert 0.3 < np.isfinite(warped[atlas.labels.array == L45]).mean() < 0.6


def test_a_thin_curved_disc_is_followed(atlas):
    """A degenerated disc, 4 mm high, bent and with a bump on one endplate, as one of the real ones."""
    def straight(p):
        z = p[..., 2] - 2.5 * np.sin(p[..., 1] / 7) - 2.0 * np.exp(-((p[..., 0] - 8)**2 + p[..., 1]**2) / 40)
        return np.stack([p[..., 0], p[..., 1], z], axis=-1)

    labels = disc_image(straight, spacing=(1.2, 0.6, 0.6), size=DiscSize(4.5, 4.0, 3.5, 36.0), width=70.0)
    row = register_person(labels, atlas).quality.rows[0]
    assert row["dice"] > 0.92 and row["folding"] == 0 and row["surface_95"] < 1.0


def test_the_smooth_surface_is_nearer_to_the_true_one_than_the_voxels():
    spacing, radius = (1.0, 0.8, 0.8), 11.0
    geometry = Geometry((32, 40, 40), spacing, (-15.5, -15.6, -15.6))
    true = np.linalg.norm(grid_points(geometry), axis=-1) - radius
    rough = signed_distance(true < 0, geometry)
    smooth = without_staircase(rough, geometry)
    near = np.abs(true) < 0.3

    def error(d):
        slope = np.linalg.norm(np.stack(np.gradient(d, *geometry.spacing[::-1])), axis=0)
        return (d / slope - true)[near]

    assert np.std(error(smooth)) < 0.5 * np.std(error(rough)) and abs(error(smooth).mean()) < 0.05


def test_folds_of_sampling_are_smoothed_and_the_rest_stays():
    geometry = Geometry((24, 24, 24))
    points = grid_points(geometry)
    vectors = np.zeros((*geometry.shape, 3), np.float32)
    vectors[..., 0] = -3 * np.tanh(2 * (points[..., 0] - 11.5)) * np.exp(-((points - 11.5)**2).sum(-1) / 30)
    field = DisplacementField(vectors, geometry)
    inner = geometry.index_to_world(np.argwhere(np.ones((20, 20, 20), bool))[:, ::-1] + 2)
    better = field.unfolded(inner)
    core = (slice(2, -2),) * 3
    assert (field.jacobian()[core] <= 0).any() and (better.jacobian()[core] > 0).all()
    assert np.abs(better.vectors - field.vectors)[:3].max() < 1e-3
    assert better.unfolded(inner) is better


def test_atlas_folder_reads_back(atlas, tmp_path):
    save_atlas(atlas, tmp_path / "atlas")
    again = load_atlas(tmp_path / "atlas")
    assert (again.labels.array == atlas.labels.array).all() and again.levels == ("L4-L5",)
    with pytest.raises(RegistrationError, match="no atlas folder"):
        load_atlas(tmp_path)


def test_missing_level_is_named_and_others_go_on():
    atlas = make_atlas(literature_labels(1.5), {})
    labels = literature_labels(1.5)
    gone = np.where(labels.array == L45, 0, labels.array).astype(np.uint8)
    done, quality = register_people([("sub-01", labels.like(gone)), ("sub-02", labels.like(0 * gone))], atlas,
                                    levels=["L3-L4", "L4-L5"])
    assert list(done) == ["sub-01"] and list(done["sub-01"].levels) == [disc_value("L3-L4")]
    row = quality.select(participant_id="sub-01", level="L4-L5").rows[0]
    assert "sub-01, L4-L5" in row["flags"] and "no such disc" in row["flags"]
    assert len(quality.select(participant_id="sub-02")) == 2


def test_two_label_images_register_in_one_call_as_a_person_does(atlas, smooth):
    labels, truth = smooth
    found = register_discs(atlas.labels, labels)
    assert np.array_equal(found.levels[L45].to_person.vectors,
                          register_person(labels, atlas).levels[L45].to_person.vectors)
    assert found.quality.rows[0]["dice"] > 0.95
    ones = labels.like(np.ones(labels.array.shape, np.float32))
    assert np.array_equal(np.isfinite(warp_to_atlas(ones, found).array), atlas.labels.array == L45)


def test_two_label_images_without_a_common_disc_are_an_error(atlas, smooth):
    nothing = atlas.labels.like(np.zeros_like(atlas.labels.array))
    with pytest.raises(RegistrationError, match="The fixed image has no disc label"):
        register_discs(nothing, smooth[0])
    with pytest.raises(RegistrationError, match="The moving image has no disc label"):
        register_discs(atlas.labels, nothing)
    other = smooth[0].like(np.where(smooth[0].array > 0, 11, 0).astype(np.uint8))
    with pytest.raises(RegistrationError, match="L4-L5: the segmentation has no such disc"):
        register_discs(atlas.labels, other)


def test_a_group_is_registered_by_the_backend_and_at_the_levels_asked_for(atlas):
    """Who cannot be registered has a row per level that was asked for; the others go on."""
    def match(fixed, moving):
        asked.append((fixed.shape.value, moving.who))
        raise RegistrationError("no match")

    asked: list = []
    people = [("sub-1", disc_image()), ("sub-2", disc_image(value=13)), ("sub-3", disc_image())]
    done, quality = register_people(people, atlas, ["L4-L5"], Backend("mine", match))
    assert not done and [(value, who[:5]) for value, who in asked] == [(L45, "sub-1"), (L45, "sub-3")]
    assert [(r["participant_id"], r["level"], r["backend"]) for r in quality.rows] == [
        (f"sub-{n}", "L4-L5", "mine") for n in (1, 2, 3)]
