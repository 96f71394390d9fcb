"""Scene, folders, geometry and volumes; the one place where RAS (MRML) meets LPS (everything else)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from ..errors import GeometryError
from ..headless import start_headless
from ..image import Geometry, Image
from ..quantities import QUANTITIES, Quantity

ATTRIBUTE = "DiscRelaxometry."
#: Node reference from a relaxation map to the sequence that was fitted.
FITTED_SERIES = ATTRIBUTE + "FittedSeries"
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


# ---------------------------------------------------------------- scene

@contextmanager
def all_or_nothing() -> Iterator[None]:
    """Save the scene for undo; when the block raises, remove the nodes that it added."""
    scene = start_headless().mrmlScene
    scene.SaveStateForUndo()
    before = set(_nodes(scene))
    try:
        yield
    except BaseException:
        # Removing a display node can make the scene add another for its owner, so more than one pass is needed.
        for _ in range(5):
            for node in [n for n in _nodes(scene).values() if n.GetID() not in before]:
                if scene.IsNodePresent(node):
                    scene.RemoveNode(node)
        raise


def _nodes(scene) -> dict:
    return {node.GetID(): node for node in (scene.GetNthNode(n) for n in range(scene.GetNumberOfNodes()))}


def add_node(class_name: str, name: str):
    """Add a node under a unique name."""
    scene = start_headless().mrmlScene
    return scene.AddNewNodeByClass(class_name, scene.GenerateUniqueName(name))


def add_hidden_node(class_name: str, name: str):
    """Add a node of a panel's own, which is not listed and not saved with the scene; its name need not be unique."""
    node = start_headless().mrmlScene.AddNewNodeByClass(class_name, name)
    node.SetHideFromEditors(True)
    node.SetSaveWithScene(False)
    return node


def remove_nodes(*nodes) -> None:
    """Remove nodes from the scene; None, and what is not there any more, are passed over."""
    scene = start_headless().mrmlScene
    for node in nodes:
        if node is not None and scene.IsNodePresent(node):
            scene.RemoveNode(node)


def create_folder(name: str) -> int:
    """Add a folder with a unique name to the subject hierarchy and return its item."""
    hierarchy = start_headless().mrmlScene.GetSubjectHierarchyNode()
    return hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), hierarchy.GenerateUniqueItemName(name))


def put_in_folder(folder: int, *nodes) -> None:
    """Move nodes into a subject-hierarchy folder."""
    hierarchy = start_headless().mrmlScene.GetSubjectHierarchyNode()
    for node in nodes:
        item = hierarchy.GetItemByDataNode(node)
        if item:
            hierarchy.SetItemParent(item, folder)
        else:
            # Without the application no plugin has made an item for the node yet.
            hierarchy.CreateItem(folder, node)


def put_beside(node, *others) -> None:
    """Move nodes into the subject-hierarchy folder of another node, if that is in one."""
    hierarchy = start_headless().mrmlScene.GetSubjectHierarchyNode()
    item = hierarchy.GetItemByDataNode(node)
    if item:
        put_in_folder(hierarchy.GetItemParent(item), *others)


# ---------------------------------------------------------------- geometry

def ras_matrix(geometry: Geometry) -> np.ndarray:
    """Return the 4 x 4 matrix from indices i, j, k to RAS mm."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = geometry.matrix3, geometry.origin
    return _LPS_TO_RAS @ matrix


def geometry_from_ras(matrix: np.ndarray, size: Sequence[int]) -> Geometry:
    """Return the LPS geometry of a 4 x 4 IJK-to-RAS matrix; GeometryError for sheared axes: no format holds them."""
    lps = _LPS_TO_RAS @ np.asarray(matrix, float)
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    if not np.all(spacing > 0):
        raise GeometryError("The volume has a direction of zero length: check its header.", anchor="unusable-geometry")
    direction = lps[:3, :3] / spacing
    if np.abs(direction.T @ direction - np.eye(3)).max() > 1e-3:
        raise GeometryError("The volume's axes are not at right angles (a transform with shear, or a tilted gantry): "
                            "resample it to a regular grid first.", anchor="unusable-geometry")
    return Geometry(size, spacing, lps[:3, 3], direction.ravel())


def oriented_geometry(image) -> Geometry:
    """Return the grid of a vtkOrientedImageData; its extent may start anywhere."""
    import vtk

    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    matrix = start_headless().util.arrayFromVTKMatrix(matrix)
    extent = image.GetExtent()
    matrix[:3, 3] += matrix[:3, :3] @ np.array(extent[::2], float)
    return geometry_from_ras(matrix, image.GetDimensions())


def position_from_ras(point: Sequence[float]) -> np.ndarray:
    """Return an LPS point in mm from a RAS point (or the other way round)."""
    return np.asarray(point, float) * [-1, -1, 1]


def volume_geometry(node) -> Geometry:
    """Return a volume node's grid in world LPS, its linear parent transform included.

    GeometryError if the node is empty or lies under a non-linear transform.
    """
    slicer = start_headless()
    import vtk

    if node is None or node.GetImageData() is None:
        name = node.GetName() if node is not None else "none"
        raise GeometryError(f"The volume '{name}' is empty: choose a volume that holds an image.")
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    world = slicer.util.arrayFromVTKMatrix(matrix)
    parent = node.GetParentTransformNode()
    if parent is not None:
        if not parent.IsTransformToWorldLinear():
            raise GeometryError(f"'{node.GetName()}' lies under a non-linear transform: harden it first "
                                "(Data module, right-click the transform).")
        parent.GetMatrixTransformToWorld(matrix)
        world = slicer.util.arrayFromVTKMatrix(matrix) @ world
    return geometry_from_ras(world, node.GetImageData().GetDimensions())


# ---------------------------------------------------------------- volumes

def image_from_volume(node) -> Image:
    """Return a copy of a scalar or labelmap volume as an Image in world LPS.

    GeometryError if the volume is empty, has several components, or its grid cannot be used.
    """
    geometry = volume_geometry(node)
    return Image(np.array(scalars(node)), geometry, {"name": node.GetName(), "node_id": node.GetID()})


def scalars(node) -> np.ndarray:
    """Return the values of a volume that is not empty, where they are; raise GeometryError for several components."""
    if node.GetImageData().GetNumberOfScalarComponents() != 1:
        raise GeometryError(f"'{node.GetName()}' has several values per voxel: choose a scalar volume.",
                            anchor="not-a-3d-volume")
    return start_headless().util.arrayFromVolume(node)


def volume_from_image(image: Image, name: str, quantity: Quantity | str | None = None, node=None,
                      class_name: str = "vtkMRMLScalarVolumeNode", legend: bool = True):
    """Put an Image into a volume node.

    Parameters
    ----------
    image : Image
        Values; NaN stays NaN and is shown transparent.
    name : str
        Node name, made unique; ignored when `node` is given.
    quantity : Quantity or str, optional
        What the values are: sets unit, quantity code, window, color table, threshold and legend.
    node : vtkMRMLScalarVolumeNode, optional
        Node to fill instead of a new one.
    legend : bool, optional
        Add a color legend, hidden until the volume is what the views show.

    Returns
    -------
    vtkMRMLScalarVolumeNode
    """
    slicer = start_headless()
    array = image.array
    if array.dtype == bool:
        array = array.astype(np.uint8)
    elif array.dtype.kind == "f":
        array = array.astype(np.float32, copy=False)
    elif array.dtype.itemsize == 8:
        array = array.astype(np.int32)
    if node is None:
        node = add_node(class_name, name)
    if quantity is not None:
        # Before the values come: a window of its own needs no histogram of them.
        node.CreateDefaultDisplayNodes()
        node.GetDisplayNode().AutoWindowLevelOff()
    was = node.StartModify()
    node.SetAndObserveTransformNodeID(None)
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(ras_matrix(image.geometry)))
    slicer.util.updateVolumeFromArray(node, array)
    node.EndModify(was)
    node.CreateDefaultDisplayNodes()
    if quantity is not None:
        quantity = QUANTITIES[quantity] if isinstance(quantity, str) else quantity
        _describe(node, quantity, array, legend)
        if quantity.description:
            node.SetDescription(quantity.description)
    return node


def _describe(node, quantity: Quantity, array: np.ndarray, legend: bool) -> None:
    """Write unit, code and display settings of a quantity to a volume node."""
    slicer = start_headless()
    node.SetAttribute(ATTRIBUTE + "Quantity", quantity.key)
    code, unit = slicer.vtkCodedEntry(), slicer.vtkCodedEntry()
    code.SetValueSchemeMeaning(*quantity.code)
    unit.SetValueSchemeMeaning(*quantity.unit_code)
    node.SetVoxelValueQuantity(code)
    node.SetVoxelValueUnits(unit)
    display = node.GetDisplayNode()
    finite = array[np.isfinite(array)]
    low, high = quantity.window
    if quantity.unit == "[arb'U]" and finite.size:
        # Arbitrary units have no physical window.
        low, high = np.percentile(finite, [1, 99])
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(float(low), float(max(high, low + 1e-6)))
    # A threshold over all finite values leaves NaN transparent; the margin outlives the rounding of a scene file.
    display.AutoThresholdOff()
    lowest, highest = map(float, (finite.min(), finite.max()) if finite.size else (low, high))
    margin = 1e-3 * max(abs(lowest), abs(highest))
    display.SetThreshold(lowest - margin, highest + margin)
    display.ApplyThresholdOn()
    colors = color_node(quantity.colors)
    if colors is not None:
        display.SetAndObserveColorNodeID(colors.GetID())
    if legend:
        shown = slicer.modules.colors.logic().AddDefaultColorLegendDisplayNode(node)
        shown.SetVisibility(False)
        unit_text = "" if quantity.unit in ("1", "[arb'U]") else f" ({quantity.unit})"
        shown.SetTitleText(quantity.name + unit_text)


def color_node(name: str):
    """Return a color table of the scene by name, or None."""
    nodes = start_headless().util.getNodesByClass("vtkMRMLColorNode")
    return next((n for n in nodes if n.GetName() == name), None)


def volumes_by_quantity(maps) -> dict:
    """Return maps (dict, or list of volume nodes that know their quantity) by quantity, without the status map."""
    if maps is not None and not isinstance(maps, dict):
        maps = {node.GetAttribute(ATTRIBUTE + "Quantity") or node.GetName(): node for node in maps}
    return {key: node for key, node in (maps or {}).items() if key != "status"}
