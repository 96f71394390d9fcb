"""The headless runtime: start, files through real storage nodes, base classes, parameter nodes, packaging."""

import enum
import os
import subprocess
import sys
from typing import Annotated, Optional

import numpy as np
import pytest
import SimpleITK as sitk

from DiscRelaxometryLib.headless import start_headless
from DiscRelaxometryLib.headless.colors import table as color_table
from DiscRelaxometryLib.headless.runtime import MODULE_LOGICS


def oblique(left_handed: bool) -> np.ndarray:
    """Return an IJK-to-RAS matrix: anisotropic, rotated about two axes, mirrored if wanted."""
    a, b = np.deg2rad(23), np.deg2rad(-11)
    rotation = (np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
                @ np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]]))
    matrix = np.eye(4)
    matrix[:3, :3] = rotation @ np.diag([0.6, 0.7, -4.4 if left_handed else 4.4])
    matrix[:3, 3] = [31.5, -70.25, 12.125]
    return matrix


def ijk_to_ras(slicer, node) -> np.ndarray:
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def test_starting_twice_returns_the_same_scene(slicer):
    scene = slicer.mrmlScene
    assert start_headless().mrmlScene is scene


def test_every_module_logic_is_registered_and_has_the_scene(slicer):
    for name, _ in MODULE_LOGICS:
        logic = getattr(slicer.modules, name.lower()).logic()
        assert logic.GetMRMLScene() is slicer.mrmlScene, name
        assert slicer.app.applicationLogic().GetModuleLogic(name) is logic, name


def test_color_tables_survive_closing_the_scene_under_slicers_ids(slicer):
    for name in ("Viridis", "Plasma", "DivergingBlueRed"):
        assert slicer.mrmlScene.GetNodeByID(f"vtkMRMLColorTableNodeFile{name}.txt").GetNumberOfColors() == 256


@pytest.mark.parametrize("name, other", [("Viridis", "viridis"), ("Plasma", "plasma"), ("DivergingBlueRed", "RdBu_r")])
def test_color_tables_are_those_of_matplotlib(name, other):
    colormaps = pytest.importorskip("matplotlib").colormaps
    expected = colormaps[other](np.linspace(0, 1, 256))[:, :3]
    assert np.abs(color_table(name) - expected).max() < 4.5 / 255


def in_a_fresh_process(code: str) -> subprocess.CompletedProcess:
    """Run code after a headless start in a process that no test's panel host has touched."""
    code = f"from DiscRelaxometryLib.headless import start_headless; slicer = start_headless(); {code}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)})


def test_start_is_quiet():
    done = in_a_fresh_process("pass")
    assert done.returncode == 0, done.stderr
    assert "ERR|" not in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_a_volume_is_compressed_unless_that_is_switched_off(slicer, tmp_path):
    node, sizes = slicer.util.addVolumeFromArray(np.zeros((10, 20, 30), np.float32), None, "zeros"), []
    for n, properties in enumerate(({}, {"useCompression": True}, {"useCompression": False})):
        assert slicer.util.saveNode(node, str(tmp_path / f"{n}.nrrd"), properties)
        sizes.append((tmp_path / f"{n}.nrrd").stat().st_size)
    assert sizes[0] == sizes[1] < 2000 < 24000 < sizes[2]


@pytest.mark.parametrize("left_handed", [False, True])
@pytest.mark.parametrize("suffix", ["nrrd", "nii.gz", "mha"])
def test_volume_file_keeps_values_and_geometry_and_agrees_with_simpleitk(slicer, tmp_path, suffix, left_handed):
    array = np.random.default_rng(0).normal(size=(3, 5, 4)).astype(np.float32)
    matrix = oblique(left_handed)
    node = slicer.util.addVolumeFromArray(array, matrix, "echo")
    path = tmp_path / f"echo.{suffix}"
    assert slicer.util.saveNode(node, str(path))
    back = slicer.util.loadVolume(str(path))
    # Slicer makes the axes right-handed on loading (it reverses k), so that values are compared where they lie.
    ijk = np.indices(array.shape)[::-1].reshape(3, -1)
    world = matrix @ np.vstack([ijk, np.ones(ijk.shape[1])])
    there = np.linalg.solve(ijk_to_ras(slicer, back), world)[:3]
    np.testing.assert_allclose(there, np.round(there), atol=1e-4)
    i, j, k = np.round(there).astype(int)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(back)[k, j, i], array.ravel())
    lps = sitk.ReadImage(str(path)).TransformContinuousIndexToPhysicalPoint((3.0, 1.0, 2.0))
    np.testing.assert_allclose(np.array(lps) * [-1, -1, 1], (matrix @ [3, 1, 2, 1])[:3], atol=1e-4)


def test_transform_file_keeps_the_matrix(slicer, tmp_path):
    import vtk

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "T")
    matrix = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    full = np.eye(4)
    full[:3, :3], full[:3, 3] = matrix, [1, -2, 3]
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(full))
    assert isinstance(slicer.util.vtkMatrixFromArray(full), vtk.vtkMatrix4x4)
    for suffix in ("h5", "tfm"):
        assert slicer.util.saveNode(node, str(tmp_path / f"t.{suffix}"))
        back = slicer.util.loadTransform(str(tmp_path / f"t.{suffix}"))
        assert back.IsA("vtkMRMLLinearTransformNode")
        np.testing.assert_allclose(slicer.util.arrayFromTransformMatrix(back), full, atol=1e-12)


def test_a_transform_file_that_bends_is_no_matrix(slicer, tmp_path):
    """A warp read as a linear transform would be the identity without a word."""
    field = sitk.GetImageFromArray(np.full((4, 4, 4, 3), (3.0, -2.0, 1.0)) * np.arange(4)[:, None, None, None])
    path = tmp_path / "warp.h5"
    sitk.WriteTransform(sitk.DisplacementFieldTransform(sitk.Cast(field, sitk.sitkVectorFloat64)), str(path))
    node = slicer.util.loadTransform(str(path))
    assert not node.IsA("vtkMRMLLinearTransformNode") and not node.IsTransformToWorldLinear()
    moved = [0.0, 0.0, 0.0]
    node.GetTransformFromParent().TransformPoint((-1.0, -1.0, 2.0), moved)  # RAS of a point on the third layer
    assert np.abs(np.array(moved) - (-1, -1, 2)).max() > 1


def test_table_file_keeps_columns(slicer, tmp_path):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", "table")
    slicer.util.updateTableFromArray(node, [np.arange(3.0), np.array([1.5, np.nan, 2.5])], ["level", "T2"])
    assert slicer.util.saveNode(node, str(tmp_path / "t.tsv"))
    back = slicer.util.loadTable(str(tmp_path / "t.tsv"))
    np.testing.assert_array_equal(slicer.util.arrayFromTableColumn(back, "T2"), [1.5, np.nan, 2.5])


def test_segmentation_file_keeps_names_and_voxels(slicer, tmp_path):
    reference = slicer.util.addVolumeFromArray(np.zeros((4, 6, 5), np.int16), oblique(True), "reference")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "discs")
    node.SetReferenceImageGeometryParameterFromVolumeNode(reference)
    mask = np.zeros((4, 6, 5), np.uint8)
    mask[1:3, 2:5, 1:4] = 1
    segment = node.GetSegmentation().AddEmptySegment("L4L5", "L4-L5")
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, segment, reference)
    path = tmp_path / "discs.seg.nrrd"
    assert slicer.util.saveNode(node, str(path))
    back = slicer.util.loadSegmentation(str(path))
    assert back.GetSegmentation().GetNthSegment(0).GetName() == "L4-L5"
    read = slicer.util.arrayFromSegmentBinaryLabelmap(back, back.GetSegmentation().GetNthSegmentID(0), reference)
    np.testing.assert_array_equal(read, mask)


def test_scene_bundle_returns_the_same_nodes(slicer, tmp_path):
    array = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    slicer.util.addVolumeFromArray(array, oblique(False), "map")
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(slicer.util.getNode("map")), array)


def test_missing_or_damaged_files_raise_and_leave_no_node(slicer, tmp_path):
    broken = tmp_path / "broken.seg.nrrd"
    broken.write_bytes(b"NRRD0004\nnonsense")
    before = slicer.mrmlScene.GetNumberOfNodes()
    with pytest.raises(RuntimeError, match="does not exist"):
        slicer.util.loadVolume(str(tmp_path / "absent.nrrd"))
    with pytest.raises(RuntimeError, match="cannot be read"):
        slicer.util.loadSegmentation(str(broken))
    assert slicer.mrmlScene.GetNumberOfNodes() == before


class Model(enum.Enum):
    mono2 = "two parameters"
    mono3 = "three parameters"


def wrapped(slicer):
    from slicer.parameterNodeWrapper import Default, WithinRange, parameterNodeWrapper

    @parameterNodeWrapper
    class Parameters:
        volume: Optional[slicer.vtkMRMLScalarVolumeNode]  # noqa: UP045 - Slicer's own modules write it so
        model: Model = Model.mono2
        threshold: Annotated[float, WithinRange(0, 1), Default(0.5)]
        align: bool = True
        times: list[float]

    logic = slicer.ScriptedLoadableModule.ScriptedLoadableModuleLogic()
    return Parameters, logic


def test_parameter_node_keeps_types_and_survives_saving(slicer, tmp_path):
    Parameters, logic = wrapped(slicer)
    parameters = Parameters(logic.getParameterNode())
    assert parameters.volume is None and parameters.model is Model.mono2
    assert parameters.threshold == 0.5 and parameters.align is True
    parameters.volume = slicer.util.addVolumeFromArray(np.zeros((2, 2, 2)), None, "echo")
    parameters.model, parameters.times, parameters.align = Model.mono3, [1.0, 20.5, 40.0], False
    assert parameters.times == [1.0, 20.5, 40.0]
    parameters.times = [1.0, 40.0]
    # The texts are the ones Slicer's own wrapper writes.
    node = parameters.parameterNode
    assert [node.GetParameter(n) for n in ("model", "align", "times.len", "times.1", "volume")] == [
        "mono3", "False", "2", "40.0", ""]
    assert not node.HasParameter("times.2")
    slicer.util.saveScene(str(tmp_path / "s.mrb"))
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "s.mrb"))
    again = Parameters(logic.getParameterNode())
    assert (again.model, again.times, again.align, again.volume.GetName()) == (Model.mono3, [1.0, 40.0], False, "echo")


def test_parameter_node_refuses_values_of_the_wrong_kind(slicer):
    Parameters, logic = wrapped(slicer)
    parameters = Parameters(logic.getParameterNode())
    with pytest.raises(ValueError, match="within"):
        parameters.threshold = 2.0
    with pytest.raises(TypeError, match="align"):
        parameters.align = "yes"
    assert parameters.threshold == 0.5 and parameters.align is True
    for bound in (0.0, 1.0):
        parameters.threshold = bound
        assert parameters.threshold == bound


def test_self_test_base_class_reports_failures(slicer):
    class FailingTest(slicer.ScriptedLoadableModule.ScriptedLoadableModuleTest):
        def test_one(self):
            self.assertEqual(1, 2)

    with pytest.raises(AssertionError, match="1 failed"):
        FailingTest().runTest()


def test_panels_say_that_they_need_slicer():
    done = in_a_fresh_process("slicer.ScriptedLoadableModule.ScriptedLoadableModuleWidget()")
    assert done.returncode != 0
    assert done.stderr.rstrip().splitlines()[-1].startswith("RuntimeError: Panels need the Slicer application")


def test_packaging_names_what_is_missing_and_installs_nothing(slicer, tmp_path):
    path = tmp_path / "requirements.txt"
    path.write_text("numpy>=2.0  # arrays\nno-such-package-anywhere>=1\nscipy>=999\n")
    with pytest.raises(RuntimeError, match=r"Atlas needs no-such-package-anywhere>=1, scipy>=999") as error:
        slicer.packaging.pip_ensure(slicer.packaging.load_requirements(path), requester="Atlas")
    assert "numpy" not in str(error.value)
    slicer.packaging.pip_ensure(["numpy>=2.0"], requester="Atlas")
    major, minor, patch = map(int, np.__version__.split(".")[:3])
    check = slicer.packaging.pip_check
    assert check(f"numpy>={np.__version__}") and check(f"numpy>={major}.{minor}")
    assert not check(f"numpy>={major}.{minor}.{patch + 1}") and check("numpy>=1.30") and not check("numpy>=10.0")
