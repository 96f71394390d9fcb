"""What ITK's NIfTI reader gets wrong: it fills a truncated file with rubbish, and turns NaN and infinity into 0."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np

from .errors import GeometryError

_FLOATS = {16: "f4", 64: "f8"}


def restore_missing(array: np.ndarray, path: Path) -> None:
    """Check that a NIfTI file is complete, and put its NaN and infinite values back into `array`, in place.

    Parameters
    ----------
    array : ndarray
        Scalar values in the file's order: (k, j, i) or (t, k, j, i). Files of other formats are left alone.
    path : Path

    Raises
    ------
    GeometryError
        If the file holds fewer values than its header says.
    """
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        return
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else open(path, "rb") as file:
            content = file.read()
        # NIfTI-1, the only version ITK reads: the header's size (348) tells the byte order.
        order = "<" if content[:4] == b"\x5c\x01\0\0" else ">"
        code, bits = (int(v) for v in np.frombuffer(content, order + "i2", 2, 70))
        start = int(np.frombuffer(content, order + "f4", 1, 108)[0])
        if len(content) < start + array.size * bits // 8:
            raise EOFError
    except (EOFError, OSError, ValueError, zlib.error) as error:
        raise GeometryError(f"'{path.name}' is truncated or damaged: copy or export it again.",
                            anchor="unreadable-image") from error
    if code in _FLOATS and array.dtype.kind == "f":
        raw = np.frombuffer(content, order + _FLOATS[code], array.size, start).reshape(array.shape)
        missing = ~np.isfinite(raw)
        array[missing] = raw[missing]
