"""DiscAtlas on MRML nodes: transforms as nodes, a run's folder, and Slicer's BRAINSFit as a backend."""

from __future__ import annotations

import tempfile
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from DiscRelaxometryLib.errors import RegistrationError
from DiscRelaxometryLib.headless import start_headless
from DiscRelaxometryLib.image import Image
from DiscRelaxometryLib.labels import disc_name
from DiscRelaxometryLib.mrml import ATTRIBUTE, add_node, create_folder, put_in_folder, table_node, volume_from_image
from DiscRelaxometryLib.progress import ProgressCallback

from .brainsfit import match_brainsfit
from .registration import Backend, PersonRegistration
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


def brainsfit_backend(run: Any = None) -> Backend:
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

    def runner(images: dict[str, Image], parameters: dict, progress: ProgressCallback) -> sitk.Transform:
        return _run(slicer, partial(run, module, None), images, parameters, progress)

    return Backend("brainsfit", partial(match_brainsfit, runner=runner), alone=True)


def _run(slicer, run, images: dict[str, Image], parameters: dict, progress: ProgressCallback) -> sitk.Transform:
    """Run BRAINSFit on temporary nodes and return its transform."""
    nodes, cli = [], None
    try:
        arguments = dict(parameters)
        for key, image in images.items():
            kind = "vtkMRMLLabelMapVolumeNode" if key.endswith("BinaryVolume") else "vtkMRMLScalarVolumeNode"
            nodes.append(volume_from_image(image, f"DiscAtlas {key}", class_name=kind, legend=False))
            arguments[key] = nodes[-1].GetID()
        # Slicer passes nodes on to a program, and leaves out what is no node's id.
        nodes.append(add_node("vtkMRMLTransformNode", "DiscAtlas outputTransform"))
        arguments["outputTransform"] = nodes[-1].GetID()
        cli = run(arguments, wait_for_completion=False, update_display=False)
        _wait(slicer, cli, progress)
        if cli.GetStatus() != cli.Completed:
            raise RegistrationError(f"BRAINSFit stopped: {_reason(cli)}", anchor="brainsfit-failed")
        return _transform_of(nodes[-1])
    finally:
        for node in [*[n.GetDisplayNode() for n in nodes], *nodes, cli]:
            if node is not None and slicer.mrmlScene.IsNodePresent(node):
                slicer.mrmlScene.RemoveNode(node)


def _wait(slicer, cli, progress: ProgressCallback) -> None:
    """Wait for a program with the window answering; end the program where `progress` raises."""
    try:
        while cli.IsBusy():
            progress(0.0, "BRAINSFit")
            slicer.app.processEvents()
            time.sleep(0.02)
    except BaseException:
        cli.Cancel()
        while cli.IsBusy():
            slicer.app.processEvents()
            time.sleep(0.02)
        raise


def _reason(cli) -> str:
    """Return what a program said last: its errors, or the end of its output."""
    text = cli.GetErrorText().strip() or cli.GetOutputText().strip()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[-3:]) or "no reason given"


def _transform_of(node) -> sitk.Transform:
    """Return the transform of a node, by way of the file that its storage node writes."""
    with _storage() as storage, tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "found.h5")
        storage.SetFileName(path)
        try:
            if storage.WriteData(node):
                return sitk.ReadTransform(path)
        except RuntimeError as error:
            raise RegistrationError(f"BRAINSFit's transform cannot be read: {error}",
                                    anchor="brainsfit-failed") from error
    raise RegistrationError("BRAINSFit stopped: it wrote no transform.", anchor="brainsfit-failed")


@contextmanager
def _storage():
    """Give a transform storage node that is in the scene for as long as it is used."""
    scene = start_headless().mrmlScene
    storage = scene.AddNewNodeByClass("vtkMRMLTransformStorageNode")
    try:
        yield storage
    finally:
        scene.RemoveNode(storage)
