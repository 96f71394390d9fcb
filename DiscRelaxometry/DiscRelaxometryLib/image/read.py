"""Read NIfTI, NRRD and MetaImage files whatever their names, checked and without losses."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import SimpleITK as sitk

from ..errors import GeometryError
from . import nifti
from .grid import Geometry, Image


def read_volumes(path: str | os.PathLike) -> tuple[sitk.Image, np.ndarray, Geometry, list[str]]:
    """Read a NIfTI, NRRD or MetaImage file as ITK does, checked and without losses.

    Returns
    -------
    image : sitk.Image
        As ITK reads it; what it says of the grid may be wrong.
    array : ndarray
        Values in the file's order, NaN and infinity kept.
    geometry : Geometry
        Grid of the first three axes.
    notes : list of str
        Contradictions in the header.

    Raises
    ------
    GeometryError
        If the file is missing, unreadable or truncated, or its header gives no usable grid.
    """
    path = Path(path)
    if not path.exists():
        raise GeometryError(f"'{path}' does not exist.")
    try:
        ending = format_ending(path)
    except OSError as error:
        raise GeometryError(f"'{path.name}' cannot be read ({error.strerror}).", anchor="unreadable-image") from None
    if not ending:
        raise GeometryError(f"'{path.name}' is no NIfTI, NRRD or MetaImage file, or is damaged: convert or copy it "
                            "again.", anchor="unreadable-image")
    content = nifti.nifti_content(path) if ending == ".nii" else None
    forms, notes = nifti.placement(content, path) if content else ({}, [])
    try:
        image = _read(path, ending, content)
    except RuntimeError as error:
        raise GeometryError(f"'{path.name}' cannot be read: the file is truncated, damaged, or no image.",
                            anchor="unreadable-image") from error
    dimension, array = image.GetDimension(), sitk.GetArrayFromImage(image)
    if content and image.GetNumberOfComponentsPerPixel() == 1:
        nifti.restore_missing(array, content, path)
    if dimension < 3:
        raise GeometryError(f"'{path.name}' has {dimension} dimensions; a volume is needed.", anchor="not-a-3d-volume")
    matrix = np.array(image.GetDirection()).reshape(dimension, dimension)[:3, :3]
    form = np.column_stack([matrix * image.GetSpacing()[:3], image.GetOrigin()[:3]])
    form, more = _placed(form, forms, image.GetSize()[:3])
    wrong = nifti.unusable(form)
    if wrong:
        raise GeometryError(f"'{path.name}' has no usable position: its matrix {wrong}. Resample the image to a "
                            "rectangular grid.", anchor="unusable-geometry")
    if ending in _STATED and not all(re.search(what, _start(path, 1 << 14)) for what in _STATED[ending]):
        notes = [*notes, "The header does not say how the image lies in the patient."]
    spacing = np.linalg.norm(form[:, :3], axis=0) if more else image.GetSpacing()[:3]
    direction = form[:, :3] / spacing if more else matrix
    try:
        geometry = Geometry(image.GetSize()[:3], tuple(spacing), tuple(form[:, 3]), tuple(direction.ravel()))
    except GeometryError as error:
        raise GeometryError(f"'{path.name}': {error.message}", anchor=error.anchor) from None
    return image, array, geometry, [*notes, *(n for n in more if n)]


#: What places a grid in the headers of other formats than NIfTI.
_STATED = {".nrrd": (rb"\nspace directions:", rb"(?i)\nspace: *(right|left|[LR][AP]S)"),
           ".mha": (rb"\nElement(Spacing|Size) *=", rb"\n(TransformMatrix|Rotation|Orientation) *=")}


def _start(path: Path, count: int) -> bytes:
    with open(path, "rb") as stream:
        return stream.read(count)


def format_ending(path: Path) -> str:
    """Return the usual ending of a file's format by its content, NIfTI, NRRD or MetaImage; else an empty string."""
    start = _start(path, 512)
    if nifti.is_nifti(start):
        return ".nii"
    if start.startswith(b"NRRD0"):
        return ".nrrd"
    return ".mha" if re.match(rb"\s*(ObjectType|NDims|Comment)\s*=", start) else ""


def read_header(path: str | os.PathLike) -> sitk.ImageFileReader | None:
    """Return what ITK reads of a file's header, whatever the file's name; None where it reads none."""
    path = Path(path)
    with suppress(RuntimeError):
        return _information(str(path))
    try:
        ending = format_ending(path)
        content = nifti.nifti_content(path) if ending == ".nii" else None
        return _read(path, ending, content, _information) if ending else None
    except (GeometryError, OSError, RuntimeError):
        return None


def _information(name: str) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetFileName(name)
    reader.ReadImageInformation()
    return reader


def _read(path: Path, ending: str, content: bytes | None, read: Callable = sitk.ReadImage):
    """Read a file whatever its name; ITK goes by the ending, and by words in the name."""
    endings = {".nii": (".nii", ".nii.gz"), ".nrrd": (".nrrd", ".nhdr"), ".mha": (".mha", ".mhd")}[ending]
    plain_content = content and nifti.for_itk(content)
    with quiet():
        if plain_content is content and path.name.lower().endswith(endings):
            try:
                return read(str(path))
            except RuntimeError:
                if content is None:
                    raise
        with TemporaryDirectory() as folder:
            plain = Path(folder) / ("image" + ending)
            plain.write_bytes(plain_content or path.read_bytes())
            return read(str(plain))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep ITK's warnings off the terminal; what matters of them is in notes."""
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.GlobalWarningDisplayOff()
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)


def _placed(form: np.ndarray, forms: dict[str, np.ndarray], size) -> tuple[np.ndarray, list[str]]:
    """Return ITK's placement, or the header's where ITK has neither of its forms, and notes if it was replaced."""
    gaps = {name: nifti.distance(form, other, size) for name, other in forms.items()}
    used = next((name for name, gap in gaps.items() if not nifti.different(gap)), None)
    if forms and used is None:
        return next(iter(forms.values())), [""]
    if used is not None and len(forms) > 1:
        first, second = list(forms.values())[:2]
        gap = nifti.distance(first, second, size)
        if nifti.different(gap):
            places = ", ".join(f"{name} {np.round(other[:, 3], 1).tolist()}" for name, other in forms.items())
            return forms[used], [f"The header's sform and qform put the image up to {gap:.1f} mm apart (first voxel "
                                 f"at {places} mm LPS); the {used} was used, as in Slicer."]
    return form, []


def read_image(path: str | os.PathLike) -> Image:
    """Read a 3-D NIfTI, NRRD or MetaImage volume; ``meta["notes"]`` lists contradictions in its header.

    Raises
    ------
    GeometryError
        If the file is missing, unreadable, or not 3-D.
    """
    image, array, geometry, notes = read_volumes(path)
    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        array = array[0]
    colors = image.GetNumberOfComponentsPerPixel() != 1 or np.iscomplexobj(array)
    if array.ndim != 3 or colors:
        remedy = "one gray value per voxel is needed" if colors else "choose one volume, or load it as an echo series"
        raise GeometryError(f"'{Path(path).name}' is not a 3-D scalar volume (size {image.GetSize()}, "
                            f"{image.GetPixelIDTypeAsString()}): {remedy}.", anchor="not-a-3d-volume")
    return Image(array, geometry, {"path": str(path), **({"notes": notes} if notes else {})})
