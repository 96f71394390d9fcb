"""DiscAtlas on nodes: transforms and quality in a folder of their own, BRAINSFit through Slicer's runner."""

from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
from support.brainsfit import BrainsfitProgram

from DiscRelaxometryLib.headless import start_headless

start_headless()

from DiscAtlas import DiscAtlasLogic  # noqa: E402
from DiscAtlasLib import mrml as atlas_mrml  # noqa: E402
from DiscAtlasLib.atlas import make_atlas  # noqa: E402
from DiscAtlasLib.cohort import CohortRegistration  # noqa: E402
from DiscAtlasLib.parametric import LITERATURE, disc_level  # noqa: E402
from DiscAtlasLib.registration import register_person  # noqa: E402
from DiscAtlasLib.transforms import DisplacementField, grid_points  # noqa: E402
from DiscRelaxometryLib import mrml  # noqa: E402
from DiscRelaxometryLib.errors import Cancelled, RegistrationError  # noqa: E402
from DiscRelaxometryLib.image import Geometry, Image  # noqa: E402


def disc(shift=(0, 0, 0)) -> Image:
    geometry = Geometry((54, 42, 28), (1.0, 1.0, 1.0), np.add((-27, -21, -14), shift))
    xyz = (grid_points(geometry) - shift) * [1, -1, 1]
    return Image(((disc_level(xyz, LITERATURE["L3-L4"]) < 0) * 13).astype(np.uint8), geometry)


def test_transform_node_maps_as_the_field(slicer):
    geometry = Geometry((12, 11, 10), (2.0, 2.0, 2.0), (-10, -9, 30))
    field = DisplacementField.sampled(lambda p: p + np.stack([0.1 * p[..., 1], 1 + 0 * p[..., 0],
                                                              -0.05 * p[..., 2]], axis=-1), geometry)
    node = atlas_mrml.transform_node(field, "field")
    point = np.array([[-3.0, 2.0, 41.0]])
    result = [0.0, 0.0, 0.0]
    # World RAS to the person's RAS is the transform from parent.
    node.GetTransformFromParent().TransformPoint(list(point[0] * [-1, -1, 1]), result)
    np.testing.assert_allclose(np.array(result) * [-1, -1, 1], field(point)[0], atol=1e-3)


def test_registration_comes_as_a_folder_of_nodes(slicer):
    atlas = make_atlas(disc(), {})
    result = register_person(disc((4, 5, -6)), atlas, person="sub-01")
    cohort = CohortRegistration(atlas, {"sub-01": result}, result.quality)
    nodes = DiscAtlasLogic().showRegistration(cohort, "sub-01")
    assert set(nodes) == {"quality", "L3-L4 to person", "L3-L4 to atlas"}
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    parents = {hierarchy.GetItemParent(hierarchy.GetItemByDataNode(n)) for n in nodes.values()}
    assert len(parents) == 1 and hierarchy.GetItemName(parents.pop()).startswith("DiscAtlas sub-01")
    moved = [0.0, 0.0, 0.0]
    nodes["L3-L4 to person"].GetTransformFromParent().TransformPoint([0, 0, 0], moved)
    np.testing.assert_allclose(moved, [-4, -5, -6], atol=0.5)
    with pytest.raises(RegistrationError, match="sub-02 is not registered"):
        DiscAtlasLogic().showRegistration(cohort, "sub-02")


@pytest.fixture
def brainsfit(slicer, monkeypatch):
    monkeypatch.setattr(slicer.modules, "brainsfit", "BRAINSFit", raising=False)
    return slicer


def registered(program, labels=None, **more):
    return register_person(labels or disc((4, 5, -6)), make_atlas(disc(), {}),
                           backend=atlas_mrml.brainsfit_backend(program.run), **more)


def test_brainsfit_gets_nodes_and_its_transform_is_used(brainsfit):
    """A B-spline after a shift, as the program writes it, comes back as it was."""
    domain = sitk.Image(70, 60, 50, sitk.sitkFloat32)
    domain.SetOrigin((-35.0, -30.0, -25.0))
    spline = sitk.BSplineTransformInitializer(domain, [4, 4, 4])
    spline.SetParameters(np.random.default_rng(1).normal(0, 0.5, len(spline.GetParameters())))
    composite = sitk.CompositeTransform([sitk.TranslationTransform(3, (0.3, -0.2, 0.4)), spline])
    program, before = BrainsfitProgram(composite), brainsfit.mrmlScene.GetNumberOfNodes()
    atlas, seen = make_atlas(disc(), {}), []
    result = register_person(disc((4, 5, -6)), atlas, backend=atlas_mrml.brainsfit_backend(program.run),
                             progressCallback=lambda f, t: seen.append((f, t)))
    parameters, arrays = program.calls[0]
    assert parameters["useBSpline"] and arrays["fixedVolume"].min() < 0 < arrays["fixedVolume"].max()
    assert set(arrays) == {"fixedVolume", "movingVolume", "fixedBinaryVolume", "movingBinaryVolume"}
    assert result.backend == "brainsfit" and result.quality.rows[0]["dice"] > 0.8
    assert brainsfit.mrmlScene.GetNumberOfNodes() == before
    # Without the transform, discs of one shape differ by their shift alone.
    points = atlas.shape(13).inside[::50]
    expected = np.array([composite.TransformPoint(composite.TransformPoint(p)) for p in points]) + [4, 5, -6]
    np.testing.assert_allclose(result.levels[13].to_person(points), expected, atol=0.15)
    assert sum(t == "BRAINSFit" for _, t in seen) >= 2, "the window could not answer"


@pytest.mark.parametrize("errors, words", [("out of memory", "out of memory"), ("", "no reason given")])
def test_brainsfit_errors_are_said(brainsfit, errors, words):
    before = brainsfit.mrmlScene.GetNumberOfNodes()
    with pytest.raises(RegistrationError, match=f"sub-01, L3-L4: BRAINSFit stopped: {words}"):
        registered(BrainsfitProgram(sitk.Transform(), "errors", errors=errors), person="sub-01")
    assert brainsfit.mrmlScene.GetNumberOfNodes() == before


def test_the_end_of_brainsfits_output_stands_in_for_an_error_text(brainsfit):
    """A path as output is left out by Slicer, and only the output's text says so."""
    program = BrainsfitProgram(sitk.Transform())

    def run(module, node, parameters, **more):
        return program.run(module, node, {**parameters, "outputTransform": "/a/path.h5"}, **more)

    with pytest.raises(RegistrationError, match="at least one output has to be specified"):
        registered(SimpleNamespace(run=run))


@pytest.mark.parametrize("ends", ["cancelled", "silent"])
def test_only_a_completed_brainsfit_is_a_success(brainsfit, ends):
    with pytest.raises(RegistrationError, match="BRAINSFit"):
        registered(BrainsfitProgram(sitk.Transform(), ends))


def test_cancel_ends_brainsfit_and_leaves_nothing(brainsfit):
    program, before = BrainsfitProgram(sitk.Transform(), polls=10**9), brainsfit.mrmlScene.GetNumberOfNodes()

    def cancel(fraction, text):
        if text == "BRAINSFit":
            raise Cancelled

    with pytest.raises(Cancelled):
        registered(program, progressCallback=cancel)
    assert program.cancelled == 1 and brainsfit.mrmlScene.GetNumberOfNodes() == before


def test_warped_volumes_keep_units_window_and_colors_both_ways(slicer):
    atlas, labels = make_atlas(disc(), {}), disc((4, 5, -6))
    result = register_person(labels, atlas, person="sub-01")
    cohort, logic = CohortRegistration(atlas, {"sub-01": result}, result.quality), DiscAtlasLogic()
    values = np.where(labels.array > 0, 80, np.nan).astype(np.float32)
    node = mrml.volume_from_image(labels.like(values), "T2", "T2")
    node.GetDisplayNode().SetWindowLevelMinMax(20, 140)
    there = logic.warpToAtlas(node, cohort, "sub-01")
    back = logic.warpFromAtlas(there, cohort, "sub-01", node)
    for warped in (there, back):
        display = warped.GetDisplayNode()
        assert warped.GetVoxelValueUnits().GetCodeValue() == "ms"
        assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == (20, 140)
        assert display.GetColorNodeID() == node.GetDisplayNode().GetColorNodeID()
        found = mrml.image_from_volume(warped).array
        assert np.isnan(found).any() and np.nanmax(np.abs(found - 80)) < 1e-3
