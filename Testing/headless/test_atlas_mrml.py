"""DiscAtlas on nodes: transforms and quality in a folder of their own, BRAINSFit by Slicer's program."""

from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
from support.brainsfit import calls, program

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
from DiscRelaxometryLib.errors import RegistrationError  # noqa: E402
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


def test_brainsfit_is_found_beside_slicers_module(slicer, monkeypatch, tmp_path):
    """Slicer knows its module by the program, or by the library beside it; the scene takes no part."""
    program(tmp_path, sitk.TranslationTransform(3, (0.0, 0.0, 0.0)))
    monkeypatch.setattr(slicer.modules, "brainsfit", SimpleNamespace(path=str(tmp_path / "libBRAINSFitLib.so")),
                        raising=False)
    segmentation = mrml.segmentation_from_labels(disc((4, 5, -6)), "sub-01")
    before = slicer.mrmlScene.GetNumberOfNodes()
    result = DiscAtlasLogic().register([segmentation], backend="brainsfit", levels=["L3-L4"])
    assert [c["initializeTransformMode"] for c in calls(tmp_path)] == ["Off"] * 2
    assert result.quality.rows[0]["backend"] == "brainsfit"
    assert slicer.mrmlScene.GetNumberOfNodes() == before


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
