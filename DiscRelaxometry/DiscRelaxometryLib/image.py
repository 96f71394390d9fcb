"""Arrays with their geometry. World coordinates are LPS (SimpleITK); MRML's RAS is met in ``mrml.py`` only."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import SimpleITK as sitk

from . import nifti
from .atomic import atomic_path, check_folder
from .errors import GeometryError, OutputError

#: Any sequence of numbers; a Geometry keeps it as a tuple.
Numbers = Any


@dataclass(frozen=True)
class Geometry:
    """Grid of an image in LPS world coordinates."""

    #: Voxels along i, j, k (SimpleITK order; the array's shape reversed).
    size: Numbers
    #: mm along i, j, k.
    spacing: Numbers = (1.0, 1.0, 1.0)
    #: LPS position in mm of the center of voxel (0, 0, 0).
    origin: Numbers = (0.0, 0.0, 0.0)
    #: Row-major 3 x 3 matrix whose columns are the LPS directions of i, j, k. Oblique and left-handed are ordinary.
    direction: Numbers = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

    def __post_init__(self):
        for name, kind in (("size", int), ("spacing", float), ("origin", float), ("direction", float)):
            object.__setattr__(self, name, tuple(kind(v) for v in getattr(self, name)))
        values = np.array(self.spacing + self.origin + self.direction)
        if not np.all(np.isfinite(values)) or min(self.spacing) <= 0 or abs(np.linalg.det(self.matrix3)) < 1e-6:
            raise GeometryError(
                f"The image has no usable geometry (spacing {self.spacing}, direction {self.direction}): "
                "check the header, or load the original DICOM.", anchor="unusable-geometry")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Array shape (k, j, i)."""
        return self.size[::-1]

    @property
    def matrix3(self) -> np.ndarray:
        """3 x 3 matrix from index steps (i, j, k) to LPS mm."""
        return np.array(self.direction).reshape(3, 3) * np.array(self.spacing)

    @property
    def voxel_volume(self) -> float:
        """Volume of one voxel in mm3."""
        return float(abs(np.linalg.det(self.matrix3)))

    def index_to_world(self, ijk) -> np.ndarray:
        """Map (..., 3) continuous indices i, j, k to LPS mm."""
        return np.asarray(ijk, float) @ self.matrix3.T + np.array(self.origin)

    def world_to_index(self, lps) -> np.ndarray:
        """Map (..., 3) LPS mm to continuous indices i, j, k."""
        return (np.asarray(lps, float) - np.array(self.origin)) @ np.linalg.inv(self.matrix3).T

    def voxel_at(self, lps) -> tuple[int, int, int] | None:
        """Return the array index (k, j, i) of the voxel that a point (LPS mm) lies in, or None outside the grid."""
        index = np.floor(self.world_to_index(lps) + 0.5)
        inside = np.all(index >= 0) and np.all(index < self.size)
        k, j, i = (int(v) for v in index[::-1])
        return (k, j, i) if inside else None

    def difference(self, other: Geometry, tolerance: float = 1e-3) -> str:
        """Say how `other` differs, or return an empty string; positions are compared at the grid's corners, in mm."""
        if self.size != other.size:
            return f"size {self.size} versus {other.size}"
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.size])).reshape(3, -1).T
        gap = np.abs(self.index_to_world(corners) - other.index_to_world(corners)).max()
        return f"positions differ by up to {gap:.3f} mm" if gap > tolerance else ""

    def to_sitk(self) -> sitk.Image:
        """Return an empty uint8 image on this grid, as a resampling reference."""
        image = sitk.Image(list(self.size), sitk.sitkUInt8)
        self.stamp(image)
        return image

    def stamp(self, image: sitk.Image) -> None:
        """Set spacing, origin and direction of a SimpleITK image."""
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin)
        image.SetDirection(self.direction)

    @classmethod
    def of(cls, image: sitk.Image) -> Geometry:
        """Return the geometry of a 3-D SimpleITK image."""
        if image.GetDimension() != 3:
            raise GeometryError(f"A 3-D image is needed; this one has {image.GetDimension()} dimensions.")
        return cls(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())


@dataclass(frozen=True)
class Image:
    """A scalar volume: `array` in (k, j, i) order on `geometry`, with free metadata in `meta`."""

    array: np.ndarray
    geometry: Geometry
    meta: dict = field(default_factory=dict)

    def __post_init__(self):
        if self.array.shape != self.geometry.shape:
            raise GeometryError(f"Array shape {self.array.shape} does not fit the grid {self.geometry.shape}.")

    @property
    def notes(self) -> list[str]:
        """What a user should know about how the image was read."""
        return self.meta.get("notes", [])

    def like(self, array: np.ndarray, **meta) -> Image:
        """Return an image on the same grid with another array; `meta` replaces the metadata."""
        return Image(np.asarray(array), self.geometry, meta)

    def to_sitk(self) -> sitk.Image:
        """Return a SimpleITK copy."""
        as_itk_has_it = {"bool": np.uint8, "float16": np.float32}.get(self.array.dtype.name, self.array.dtype)
        image = sitk.GetImageFromArray(self.array.astype(as_itk_has_it, copy=False))
        self.geometry.stamp(image)
        return image

    def upright(self) -> Image:
        """Return the image with axes nearest to left, posterior, superior (head up); no voxel changes its value."""
        return Image.from_sitk(sitk.DICOMOrient(self.to_sitk(), "LPS"))

    @classmethod
    def from_sitk(cls, image: sitk.Image, **meta) -> Image:
        """Return a copy of a 3-D scalar SimpleITK image."""
        return cls(sitk.GetArrayFromImage(image), Geometry.of(image), meta)


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


#: Endings of image files that are written: one file each.
WRITTEN = (".nii.gz", ".nii", ".nrrd", ".mha")


def check_output(path: str | os.PathLike) -> None:
    """Raise OutputError unless an image can be written to `path`; call it before long work.

    Raises
    ------
    OutputError
        If the ending is not one of :data:`WRITTEN`, or the folder cannot be made or written.
    """
    _ending(Path(path))
    check_folder(Path(path).parent)


def write_image(image: Image, path: str | os.PathLike) -> Path:
    """Write an image atomically (compressed) and read it back; booleans become uint8, float64 becomes float32.

    Raises
    ------
    OutputError
        If the ending is unknown, or the file cannot be written in full.
    """
    path = Path(path)
    if image.array.dtype == np.float64:
        image = replace(image, array=image.array.astype(np.float32))
    written = image.to_sitk()
    with atomic_path(path, _ending(path)) as temporary:
        save_checked(written, temporary, path)
    return path


def save_checked(image: sitk.Image, temporary: Path, path: Path) -> None:
    """Write an image to a temporary name and compare what is on disk; ITK does not report a full one."""
    try:
        sitk.WriteImage(image, str(temporary), useCompression=True)
        content = nifti.nifti_content(temporary)
        if content is not None:
            nifti.restore_missing(sitk.GetArrayViewFromImage(image).copy(), content, path)
        elif sitk.Hash(sitk.ReadImage(str(temporary))) != sitk.Hash(image):
            raise RuntimeError("the file differs")
    except (RuntimeError, GeometryError) as error:
        if shutil.disk_usage(temporary.parent).free < sitk.GetArrayViewFromImage(image).nbytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        require_written(False, path)


def require_written(complete: bool, path: Path) -> None:
    """Raise OutputError unless what is on disk is what was to be written."""
    if not complete:
        raise OutputError(f"'{path.name}' could not be written in full: check the disk and the folder.")


def _ending(path: Path) -> str:
    ending = next((e for e in WRITTEN if path.name.lower().endswith(e)), None)
    if ending is None:
        raise OutputError(f"'{path.name}' has no ending of an image file: use one of {', '.join(WRITTEN)}.")
    return ending


def require_same_geometry(first: Image, second: Image, what: str) -> None:
    """Raise GeometryError, naming `what`, if two images do not share a grid."""
    difference = first.geometry.difference(second.geometry)
    if difference:
        raise GeometryError(f"{what} are on different grids ({difference}): resample one of them first.",
                            anchor="different-grids")


def resample(image: Image, geometry: Geometry, interpolator: int = sitk.sitkLinear, default: float = 0.0,
             transform: sitk.Transform | None = None) -> Image:
    """Resample onto `geometry`; `transform` maps points of `geometry` to points of `image` (LPS mm)."""
    result = sitk.Resample(image.to_sitk(), geometry.to_sitk(), transform or sitk.Transform(3, sitk.sitkIdentity),
                           interpolator, default)
    return Image.from_sitk(result, **image.meta)


@contextmanager
def one_thread() -> Iterator[None]:
    """Run ITK on one thread: sums in another order differ in the last digits, and optimizers follow them."""
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
