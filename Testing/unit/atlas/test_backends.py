"""Elastix and BRAINSFit behind the one interface: start, parameters, plain words, transforms."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from support.atlas_phantom import literature_labels
from support.brainsfit import calls, program
from unit.atlas.test_registration import L45, disc_image

from DiscAtlasLib.atlas import make_atlas
from DiscAtlasLib.brainsfit import parameters_for, run_brainsfit
from DiscAtlasLib.elastix import parameter_files, plain_words, run_elastix, to_sitk
from DiscAtlasLib.registration import Backend, brainsfit_backend, register_person
from DiscAtlasLib.shape import disc_shape
from DiscAtlasLib.start import composed, posed
from DiscAtlasLib.transforms import DisplacementField, Match, grid_points
from DiscRelaxometryLib.errors import RegistrationError
from DiscRelaxometryLib.image import Geometry, write_image


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
    images = posed(atlas.shape(L45), disc_shape(moved, L45))
    a, b = images.fixed.array < 0, images.moving.array < 0
    assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.95


def test_the_start_knows_depth_height_and_width(atlas):
    """A flat disc: the start overlaps, and its image holds distances in atlas millimeters."""
    flat = disc_image(lambda p: p * [1 / 1.1, 1 / 0.9, 1.7], spacing=(1.0, 0.6, 0.6), width=70.0)
    images = posed(atlas.shape(L45), disc_shape(flat, L45))
    a, b = images.fixed.array, images.moving.array
    assert 2 * ((a < 0) & (b < 0)).sum() / ((a < 0).sum() + (b < 0).sum()) > 0.95
    assert np.abs(a - b)[np.abs(a) < 3].mean() < 0.6


def test_brainsfit_gets_its_parameters_and_its_transform_is_used(atlas, moved, tmp_path):
    program(tmp_path, sitk.TranslationTransform(3, (0.0, 0.5, 0.0)))
    result = register_person(moved, atlas, backend=brainsfit_backend(str(tmp_path)))
    coarse, fine = calls(tmp_path)
    images = posed(atlas.shape(L45), disc_shape(moved, L45))
    expected = parameters_for(images.geometry, 6.0)
    assert fine["useBSpline"] is True and float(fine["maxBSplineDisplacement"]) == expected["maxBSplineDisplacement"]
    assert fine["splineGridSize"] == ",".join(map(str, expected["splineGridSize"])) != coarse["splineGridSize"]
    assert set(expected) < set(fine) and "samplingStrategy" not in fine
    # Two translations by 0.5 mm in the atlas are one of 1 mm x 1.15 at the person, in the turned direction.
    center = atlas.shape(L45).center[None]
    np.testing.assert_allclose(result.levels[L45].to_person(center), images.to_moving(center + [0, 1.0, 0]), atol=0.02)
    assert result.backend == "brainsfit"


def test_brainsfits_spline_after_a_shift_comes_back_as_it_was(atlas, moved, tmp_path):
    domain = sitk.Image(70, 60, 50, sitk.sitkFloat32)
    domain.SetOrigin((-35.0, -30.0, -25.0))
    spline = sitk.BSplineTransformInitializer(domain, [4, 4, 4])
    spline.SetParameters(np.random.default_rng(1).normal(0, 0.5, len(spline.GetParameters())))
    found = sitk.CompositeTransform([sitk.TranslationTransform(3, (0.3, -0.2, 0.4)), spline])
    images = posed(atlas.shape(L45), disc_shape(moved, L45))
    back = run_brainsfit(str(program(tmp_path, found)), images, parameters_for(images.geometry, 6.0))
    for point in atlas.shape(L45).inside[::500]:
        np.testing.assert_allclose(back.TransformPoint(point), found.TransformPoint(point), atol=1e-9)


@pytest.mark.parametrize("ends, words, said", [
    ("errors", "out of memory", "BRAINSFit stopped: out of memory"),
    ("errors", "Exception:\nLine: 9\nDescription: ITK ERROR: spacing\n\n", "stopped: Description: ITK ERROR: spacing"),
    ("silent", "", "no transform that can be read"),
    ("errors", "", "BRAINSFit stopped: no reason given, exit code 1")])
def test_only_a_brainsfit_that_ended_well_and_wrote_is_a_success(atlas, moved, tmp_path, ends, words, said):
    program(tmp_path, sitk.Transform(), ends, words)
    with pytest.raises(RegistrationError, match=f"sub-01, L4-L5: .*{said}"):
        register_person(moved, atlas, backend=brainsfit_backend(str(tmp_path)), person="sub-01")


@pytest.mark.parametrize("change, said", [
    ({"samplingStrategy": "Random"}, "stopped: PARSE ERROR: Argument: --samplingStrategy Couldn't find match"),
    ({"costMetric": "SSD"}, "does not meet constraint: MMI.MSE.NC.MIH \\[Help"),
    ({"samplingPercentage": "few"}, "Couldn't read argument value from string 'few'"),
    ({"maskProcessingMode": "NOMASK"}, "stopped: ERROR: .* specify mask file names")])
def test_brainsfits_refusal_of_a_parameter_is_said(atlas, moved, tmp_path, change, said):
    images = posed(atlas.shape(L45), disc_shape(moved, L45))
    with pytest.raises(RegistrationError, match=said):
        run_brainsfit(str(program(tmp_path, sitk.Transform())), images, {**parameters_for(images.geometry, 6.0),
                                                                         **change})


@pytest.mark.skipif(shutil.which("BRAINSFit") is None, reason="the program BRAINSFit (of 3D Slicer) is not on the PATH")
def test_the_program_brainsfit_registers(atlas, moved):
    row = register_person(moved, atlas, backend="brainsfit").quality.rows[0]
    assert row["dice"] > 0.95 and row["folding"] == 0


@pytest.mark.parametrize("size", [(64, 57, 40), (60, 60, 60), (61, 49, 31), (20, 20, 20)])
def test_a_control_point_moves_at_most_four_tenths_of_the_smallest_control_spacing(size):
    """Beyond that a cubic B-spline can fold (Choi and Lee 2000)."""
    parameters = parameters_for(Geometry(size), 6.0)
    spacing = np.array(size) / parameters["splineGridSize"]
    assert np.all(spacing >= 5) and np.all(spacing <= 8)
    assert parameters["maxBSplineDisplacement"] == pytest.approx(0.4 * spacing.min())


def test_no_linear_stage_slides_where_a_disc_is_cut_and_the_spline_goes_on():
    parameters = parameters_for(Geometry((60, 60, 60)), 6.0)
    assert {name for name in parameters if name.startswith("use")} == {"useBSpline"}
    assert parameters["costFunctionConvergenceFactor"] < 1e13, "the program's own 2e13 ends after one iteration"


def test_the_parameter_files_name_what_builds_before_elastix_5_1_have():
    for path in map(Path, parameter_files()):
        named = dict(re.findall(r'^\((\w+) "(\w+)"\)', path.read_text(), re.M))
        assert (named["Interpolator"], named["ResampleInterpolator"]) == ("LinearInterpolator",
                                                                          "FinalBSplineInterpolator"), path.name


def test_one_level_that_fails_has_the_backends_reason_and_the_others_go_on():
    atlas = make_atlas(literature_labels(1.5), {})

    def match(fixed, moving):
        if moving.name == "L3-L4":
            raise RegistrationError(f"{moving.who}: no luck.", anchor="folding")
        return Match(lambda p: p, lambda p: p)

    result = register_person(literature_labels(1.5), atlas, ["L3-L4", "L4-L5"], Backend("mine", match), person="sub-01")
    assert list(result.levels) == [L45] and result.backend == "mine"
    assert result.quality.rows[0]["flags"] == "not registered: sub-01, L3-L4: no luck."
    with pytest.raises(RegistrationError, match="^sub-01, L3-L4: no luck") as error:
        register_person(literature_labels(1.5), atlas, ["L3-L4"], Backend("mine", match), person="sub-01")
    assert str(error.value).count("[Help") == 1


def test_without_brainsfit_the_other_backends_are_named(atlas, moved, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RegistrationError, match="program of 3D Slicer.*'coordinates' or 'elastix'"):
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
    result = register_person(moved, atlas, backend="elastix", workers=1)
    row = result.quality.rows[0]
    assert row["dice"] > 0.95 and row["folding"] == 0 and row["inverse_error"] < 0.2
    assert list(tmp_path.iterdir()) == []
    # Labels are all it sees, so that the grade of the disc cannot matter; and its random samples are the same again.
    graded = register_person(moved.like(moved.array.copy(), grade=5), atlas, backend="elastix", workers=1)
    change = graded.levels[L45].to_person.vectors - result.levels[L45].to_person.vectors
    assert np.abs(change).max() < 0.05


@pytest.mark.skipif(shutil.which("elastix") is None, reason="the program elastix (Debian: elastix) is not installed")
def test_the_program_elastix_takes_the_parameter_files(atlas, moved, tmp_path):
    """What itk-elastix has built in, older builds may lack; a few iterations tell."""
    images, files = posed(atlas.shape(L45), disc_shape(moved, L45)), []
    for path in map(Path, parameter_files()):
        files.append(tmp_path / path.name)
        files[-1].write_text(re.sub(r"(?<=MaximumNumberOfIterations )[\d ]+", "5", path.read_text()))
    assert np.linalg.norm(map_of_program(images, files, tmp_path) - images.to_moving(POINTS), axis=1).max() > 0.01


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("elastix") is None, reason="the program elastix (Debian: elastix) is not installed")
def test_the_program_elastix_finds_the_same_map_as_itk_elastix(atlas, moved, tmp_path):
    pytest.importorskip("itk")
    images, files = posed(atlas.shape(L45), disc_shape(moved, L45)), parameter_files()
    package = composed(images, to_sitk(run_elastix(images, files)))(POINTS)
    assert np.linalg.norm(map_of_program(images, files, tmp_path) - package, axis=1).max() < 1e-3


POINTS = np.random.default_rng(0).uniform((-20, -14, -6), (20, 14, 6), (500, 3))


def map_of_program(images, files, folder):
    """Return where the program elastix maps the points."""
    arguments = ["elastix", "-out", str(folder), "-threads", "1"]
    for option, image in (("-f", images.fixed), ("-m", images.moving), ("-fMask", images.mask)):
        write_image(image, folder / f"{option[1:]}.nii")
        arguments += [option, str(folder / f"{option[1:]}.nii")]
    done = subprocess.run([*arguments, *[a for f in files for a in ("-p", str(f))]], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    maps = [read_parameters(folder / f"TransformParameters.{n}.txt") for n in range(len(files))]
    return composed(images, to_sitk(maps))(POINTS)


def read_parameters(path: Path) -> dict:
    lines = re.findall(r"^\((\S+) (.*)\)", path.read_text(), re.M)
    return {key: tuple(v.strip('"') for v in values.split()) for key, values in lines}


def test_inverse_of_a_field_is_its_inverse():
    geometry = Geometry((30, 28, 26), (1.0, 1.0, 1.0), (-15, -14, -13))

    def bent(p):
        return p + np.stack([2 * np.sin(p[..., 1] / 8), 0.1 * p[..., 0], 1.5 * np.cos(p[..., 0] / 7)], axis=-1)

    field = DisplacementField.sampled(bent, geometry)
    inner = Geometry((10, 10, 10), (1.0, 1.0, 1.0), (-5, -5, -5))
    back = field.inverse(inner, lambda p: p)
    points = grid_points(inner)
    assert np.abs(bent(back(points)) - points).max() < 0.02
    assert np.abs(field.jacobian()[5:-5, 5:-5, 5:-5]).min() > 0.5
