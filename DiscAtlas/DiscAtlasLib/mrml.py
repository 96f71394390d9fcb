"""DiscAtlas on MRML nodes: transforms as nodes, and a run's folder."""

import tempfile
from contextlib import contextmanager
from pathlib import Path

from DiscRelaxometryLib.errors import RegistrationError
from DiscRelaxometryLib.headless import start_headless
from DiscRelaxometryLib.labels import disc_name
from DiscRelaxometryLib.mrml import ATTRIBUTE, add_node, create_folder, put_in_folder, table_node

from .registration import PersonRegistration
from .transforms import DisplacementField, write_transform


def transform_node(field: DisplacementField, name: str):
    """Put a displacement field into a vtkMRMLTransformNode.

    An ITK transform maps fixed points to moving ones, which is MRML's transform *from* parent: the node resamples
    volumes as the ITK transform does.
    """
    node = add_node("vtkMRMLTransformNode", name)
    with _storage() as storage, tempfile.TemporaryDirectory() as folder:
        path = write_transform(field, Path(folder) / "field.h5")
        storage.SetFileName(str(path))
        if not storage.ReadData(node):
            raise RegistrationError(f"The transform '{name}' cannot be read back into the scene.")
    return node


def registration_nodes(registration: PersonRegistration) -> dict:
    """Put a person's transforms and quality table into the scene, in a folder of their own.

    Returns
    -------
    dict
        ``"quality"`` and, for each level, ``"L4-L5 to person"`` and ``"L4-L5 to atlas"``.
    """
    person = registration.person or "person"
    item = create_folder(f"DiscAtlas {person}")
    nodes = {"quality": table_node(registration.quality, f"{person} registration quality")}
    for value, transform in registration.levels.items():
        for direction, field in (("to person", transform.to_person), ("to atlas", transform.to_atlas)):
            key = f"{disc_name(value)} {direction}"
            nodes[key] = transform_node(field, f"{person} {key}")
    put_in_folder(item, *nodes.values())
    return nodes


def keep_look(source, target):
    """Give a warped volume the quantity, units, window, colors and threshold of the volume it came from; return it."""
    target.SetVoxelValueQuantity(source.GetVoxelValueQuantity())
    target.SetVoxelValueUnits(source.GetVoxelValueUnits())
    for name in source.GetAttributeNames():
        if name.startswith(ATTRIBUTE):
            target.SetAttribute(name, source.GetAttribute(name))
    old, new = source.GetScalarVolumeDisplayNode(), target.GetScalarVolumeDisplayNode()
    if old is not None and new is not None:
        new.SetAndObserveColorNodeID(old.GetColorNodeID())
        new.SetAutoWindowLevel(old.GetAutoWindowLevel())
        if not old.GetAutoWindowLevel():
            new.SetWindowLevel(old.GetWindow(), old.GetLevel())
        new.SetApplyThreshold(old.GetApplyThreshold())
        new.SetThreshold(old.GetLowerThreshold(), old.GetUpperThreshold())
    return target


def brainsfit_folder() -> str | None:
    """Return the folder of Slicer's command line modules, where BRAINSFit is; None outside Slicer."""
    module = getattr(start_headless().modules, "brainsfit", None)
    return None if module is None else str(Path(module.path).parent)


@contextmanager
def _storage():
    """Give a transform storage node that is in the scene for as long as it is used."""
    scene = start_headless().mrmlScene
    storage = scene.AddNewNodeByClass("vtkMRMLTransformStorageNode")
    try:
        yield storage
    finally:
        scene.RemoveNode(storage)
