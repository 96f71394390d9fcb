"""Write image files atomically, and see that all of the image is on disk."""

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..atomic import atomic_path, check_folder
from ..errors import GeometryError, OutputError
from . import nifti
from .grid import Image

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
