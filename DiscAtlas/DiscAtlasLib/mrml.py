"""DiscAtlas on MRML nodes: transforms as nodes, a run's folder, and Slicer's BRAINSFit as a backend."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import SimpleITK as sitk

from DiscRelaxometryLib.errors import RegistrationError
from DiscRelaxometryLib.headless import start_headless
from DiscRelaxometryLib.image import Image
from DiscRelaxometryLib.labels import disc_name
from DiscRelaxometryLib.mrml import ATTRIBUTE, add_node, create_folder, put_in_folder, table_node, volume_from_image

from .brainsfit import BrainsfitBackend
from .registration import PersonRegistration
from .transforms import DisplacementField, write_transform


def transform_node(field: DisplacementField, name: str):
    """Put a displacement field into a vtkMRMLTransformNode.

    An ITK transform maps fixed points to moving ones, which is MRML's transform *from* parent: the node resamples
    volumes as the ITK transform does.
    """
    node = add_node("vtkMRMLTransformNode", name)
    storage = start_headless().mrmlScene.AddNewNodeByClass("vtkMRMLTransformStorageNode")
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = write_transform(field, Path(folder) / "field.h5")
            storage.SetFileName(str(path))
            if not storage.ReadData(node):
                raise RegistrationError(f"The transform '{name}' can not be read back into the scene.")
    finally:
        start_headless().mrmlScene.RemoveNode(storage)
    return node


def registration_nodes(registration: PersonRegistration, folder: int | None = None) -> dict:
    """Put a person's transforms and quality table into the scene, in a folder of their own.

    Returns
    -------
    dict
        ``"quality"`` and, for each level, ``"L4-L5 to person"`` and ``"L4-L5 to atlas"``.
    """
    person = registration.person or "person"
    item = create_folder(f"DiscAtlas {person}", folder)
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


def brainsfit_backend(run: Callable | None = None) -> BrainsfitBackend:
    """Return the BRAINSFit backend that runs Slicer's own program.

    Parameters
    ----------
    run : callable, optional
        Stands in for ``slicer.cli.run``.

    Raises
    ------
    RegistrationError
        If this is not 3D Slicer.
    """
    slicer = start_headless()
    module = getattr(getattr(slicer, "modules", None), "brainsfit", None)
    run = run or getattr(getattr(slicer, "cli", None), "run", None)
    if run is None or module is None:
        raise RegistrationError("BRAINSFit is a program of 3D Slicer and is not here: use Slicer, or choose the "
                                "backend 'coordinates' or 'elastix'.", anchor="brainsfit-outside-slicer")

    def runner(images: dict[str, Image], parameters: dict) -> sitk.Transform:
        return _run(slicer, module, run, images, parameters)

    return BrainsfitBackend(runner)


def _run(slicer, module, run, images: dict[str, Image], parameters: dict) -> sitk.Transform:
    """Run BRAINSFit on temporary nodes and return its transform."""
    nodes, cli = [], None
    try:
        arguments = dict(parameters)
        for key, image in images.items():
            kind = "vtkMRMLLabelMapVolumeNode" if key.endswith("BinaryVolume") else "vtkMRMLScalarVolumeNode"
            nodes.append(volume_from_image(image, f"DiscAtlas {key}", class_name=kind, legend=False))
            arguments[key] = nodes[-1].GetID()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "found.h5"
            arguments["outputTransform"] = str(path)
            cli = run(module, None, arguments, wait_for_completion=True, update_display=False)
            if cli.GetStatus() & cli.ErrorsMask:
                raise RegistrationError(f"BRAINSFit stopped: {cli.GetErrorText().strip() or 'no reason given'}",
                                        anchor="brainsfit-failed")
            return sitk.ReadTransform(str(path))
    finally:
        for node in [*[n.GetDisplayNode() for n in nodes], *nodes, cli]:
            if node is not None and slicer.mrmlScene.IsNodePresent(node):
                slicer.mrmlScene.RemoveNode(node)
