"""Elastix and BRAINSFit behind the one interface: start, parameters, plain words, transforms."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from unit.atlas.test_registration import L45, disc_image

from DiscAtlasLib.atlas import make_atlas
from DiscAtlasLib.brainsfit import BrainsfitBackend, parameters_for
from DiscAtlasLib.elastix import match_elastix, parameter_files, plain_words, to_sitk
from DiscAtlasLib.registration import register_person
from DiscAtlasLib.start import pose
from DiscAtlasLib.transforms import DisplacementField
from DiscRelaxometryLib.errors import RegistrationError
from DiscRelaxometryLib.image import Geometry


@pytest.fixture(scope="module")
def atlas():
    return make_atlas(disc_image(spacing=(1.0, 1.0, 1.0)), {})


@pytest.fixture(scope="module")
def moved():
    """The atlas's disc, 60 mm away, turned by 20 degrees and 15 % larger: no overlap."""
    c, s = np.cos(np.radians(20)), np.sin(np.radians(20))
    turn = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    labels = disc_image(lambda p: p @ turn / 1.15, spacing=(1.2, 0.8, 0.8), width=66.0)
    g = labels.geometry
    shifted = Geometry(g.size, g.spacing, np.add(g.origin, (10, 60, -35)), g.direction)
    return type(labels)(labels.array, shifted)


def test_frames_start_without_overlap(atlas, moved):
    from DiscAtlasLib.shape import disc_shape
    problem = pose(atlas.shape(L45), disc_shape(moved, L45))
    a, b = problem.fixed.array < 0, problem.moving.array < 0
    assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.95


def test_brainsfit_gets_its_parameters_and_its_transform_is_used(atlas, moved):
    seen = []

    def runner(images, parameters):
        seen.append((images, parameters))
        return sitk.TranslationTransform(3, (0.0, 0.5, 0.0))

    result = register_person(moved, atlas, backend=BrainsfitBackend(runner))
    images, parameters = seen[0]
    assert set(images) == {"fixedVolume", "movingVolume", "fixedBinaryVolume", "movingBinaryVolume"}
    assert images["fixedVolume"].array.min() < 0 < images["fixedVolume"].array.max()
    assert parameters["useBSpline"] and parameters["initializeTransformMode"] == "Off"
    grid = images["fixedVolume"].geometry
    spacing = np.array(grid.size) / parameters["splineGridSize"]
    assert np.all(spacing >= 5) and np.all(spacing <= 8)
    assert parameters == parameters_for(grid)
    # A translation by 0.5 mm in the atlas is one of 0.5 mm x 1.15 at the person, in the turned direction.
    start = pose(atlas.shape(L45), result.shapes[L45]).start
    center = atlas.shape(L45).center[None]
    np.testing.assert_allclose(result.levels[L45].to_person(center), start(center + [0, 0.5, 0]), atol=0.02)


def test_brainsfit_outside_slicer_says_so(atlas, moved):
    with pytest.raises(RegistrationError, match="program of 3D Slicer"):
        register_person(moved, atlas, backend="brainsfit")
    with pytest.raises(RegistrationError, match="no registration backend"):
        register_person(moved, atlas, backend="magic")


def test_elastix_words():
    words = plain_words("itk::ERROR: Too many samples map outside moving image buffer: 1 / 2000")
    assert "too far apart" in words and "samples" not in words
    assert "no voxel to compare" in plain_words("No valid voxels (0/2000) found")


def test_elastix_parameter_maps_become_itk_transforms():
    maps = [{"Transform": ("EulerTransform",), "TransformParameters": ("0.1", "0", "0", "1", "2", "3"),
             "CenterOfRotationPoint": ("0", "0", "0"), "ComputeZYX": ("false",)},
            {"Transform": ("AffineTransform",), "TransformParameters": (1.1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0),
             "CenterOfRotationPoint": ("0", "0", "0")}]
    c, s = np.cos(0.1), np.sin(0.1)
    point = np.array([3.0, 4.0, 5.0])
    turned = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ point + [1, 2, 3]
    np.testing.assert_allclose(to_sitk(maps).TransformPoint(point), turned * [1.1, 1, 1], atol=1e-9)
    with pytest.raises(RegistrationError, match="SplineKernelTransform"):
        to_sitk([{"Transform": ("SplineKernelTransform",), "TransformParameters": ("0",)}])


def test_parameter_files_give_reasons():
    for path in parameter_files():
        text = Path(path).read_text(encoding="utf-8")
        assert text.startswith("//") and "(RandomSeed" in text and text.count("//") >= 4
    with pytest.raises(RegistrationError, match="missing"):
        parameter_files("/nowhere")


@pytest.mark.slow
def test_elastix_registers(atlas, moved, tmp_path, monkeypatch):
    pytest.importorskip("itk")
    monkeypatch.chdir(tmp_path)
    result = register_person(moved, atlas, backend=lambda p, c: match_elastix(p, c, workers=1))
    row = result.quality.rows[0]
    assert row["dice"] > 0.95 and row["folding"] == 0 and row["inverse_error"] < 0.2
    assert list(tmp_path.iterdir()) == []
    # Labels are all it sees, so that the grade of the disc can not matter; and its random samples are the same again.
    graded = register_person(moved.like(moved.array.copy(), grade=5), atlas,
                             backend=lambda p, c: match_elastix(p, c, workers=1))
    change = graded.levels[L45].to_person.vectors - result.levels[L45].to_person.vectors
    assert np.abs(change).max() < 0.05


def test_inverse_of_a_field_is_its_inverse():
    geometry = Geometry((30, 28, 26), (1.0, 1.0, 1.0), (-15, -14, -13))

    def bent(p):
        return p + np.stack([2 * np.sin(p[..., 1] / 8), 0.1 * p[..., 0], 1.5 * np.cos(p[..., 0] / 7)], axis=-1)

    field = DisplacementField.sampled(bent, geometry)
    inner = Geometry((10, 10, 10), (1.0, 1.0, 1.0), (-5, -5, -5))
    back = field.inverse(inner, lambda p: p)
    from DiscAtlasLib.transforms import grid_points
    points = grid_points(inner)
    assert np.abs(bent(back(points)) - points).max() < 0.02
    assert np.abs(field.jacobian()[5:-5, 5:-5, 5:-5]).min() > 0.5
