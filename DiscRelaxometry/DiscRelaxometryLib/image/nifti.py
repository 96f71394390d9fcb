"""What ITK's NIfTI reader gets wrong or keeps to itself.

It fills a truncated file with rubbish, turns NaN and infinity into 0, goes by a file's ending, and settles headers that
contradict themselves without a word. The header's fields are those of nifti1.h (https://nifti.nimh.nih.gov).
"""

import gzip
import zlib
from pathlib import Path

import numpy as np

from ..errors import GeometryError

_GZIP = b"\x1f\x8b"
#: The header's size, by which its byte order is known.
_VERSION_1, _VERSION_2 = (b"\x5c\x01\0\0", b"\0\0\x01\x5c"), (b"\x1c\x02\0\0", b"\0\0\x02\x1c")
_FLOATS = {16: "f4", 64: "f8"}
_MILLIMETERS = {1: 1e3, 3: 1e-3}
#: From RAS, in which NIfTI states positions, to LPS.
_TO_LPS = np.diag([-1.0, -1.0, 1.0])
#: Positions (mm) and voxel sizes (share) that differ by less are the same but for rounding.
_SAME_MM, _SAME_SHARE = 0.1, 0.01
#: What float32 leaves of a squared length of 1, as NiBabel has it: three of its steps.
_ROUNDING = 3 * 2.0**-23


def nifti_content(path: Path) -> bytes | None:
    """Return a NIfTI-1 file's bytes, unzipped whatever its ending; None if it is something else.

    GeometryError if compressed data end early, the file is NIfTI-2 or half of a pair, or its scaling is unusable.
    """
    try:
        content = path.read_bytes()
        if content[:2] == _GZIP:
            content = gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise _truncated(path) from error
    if content[:4] in _VERSION_2:
        raise GeometryError(f"'{path.name}' is a NIfTI-2 file, which is not read here: convert it to NIfTI-1.",
                            anchor="unreadable-image")
    if content[:4] not in _VERSION_1:
        return None
    if len(content) < 348:
        raise _truncated(path)
    if content[344:348] != b"n+1\0":
        raise GeometryError(f"'{path.name}' is the header of an image in two files (.hdr and .img): convert it to one "
                            ".nii.gz file.", anchor="unreadable-image")
    _require_scaling(content, path)
    return content


def is_nifti(start: bytes) -> bool:
    """Tell by its first bytes whether a file is NIfTI, zipped or not."""
    if start[:2] == _GZIP:
        start = zlib.decompressobj(wbits=31).decompress(start, 348)
    # A DICOM file's preamble may hold the start of another format.
    return start[:4] in (*_VERSION_1, *_VERSION_2) and start[128:132] != b"DICM"


def _require_scaling(content: bytes, path: Path) -> None:
    slope, intercept = _scaling(content)
    if np.isinf(slope) or (slope and not np.isnan(slope) and not np.isfinite(intercept)):
        raise GeometryError(f"'{path.name}' has an unusable scaling (scl_slope {slope:g}, scl_inter {intercept:g}): "
                            "export the image again.", anchor="unreadable-image")


def for_itk(content: bytes) -> bytes:
    """Return the content without what ITK would stumble over.

    It adds an intercept that has no slope, which does not count, and never returns from some infinite transforms.
    """
    order, header = _byte_order(content), bytearray(content[:348])
    slope, intercept = _scaling(content)
    if (slope == 0 or np.isnan(slope)) and np.isfinite(intercept):
        header[112:120] = bytes(8)
    for code, start, end in ((252, 256, 280), (254, 280, 328)):
        if not np.all(np.isfinite(np.frombuffer(content[start:end], order + "f4"))):
            header[code:code + 2], header[start:end] = bytes(2), bytes(end - start)
    sizes = np.frombuffer(content[76:108], order + "f4")
    header[76:108] = np.where(np.isfinite(sizes), sizes, 1).astype(order + "f4").tobytes()
    return content if header == content[:348] else bytes(header) + content[348:]


def _scaling(content: bytes) -> np.ndarray:
    """Return slope and intercept; 0 or NaN as slope is no scaling."""
    return np.frombuffer(content, _byte_order(content) + "f4", 2, 112)


def restore_missing(array: np.ndarray, content: bytes, path: Path) -> None:
    """Check that an unzipped NIfTI file is complete; put its NaN and infinite values back into `array`, in place.

    The array is in the file's order, (k, j, i) or (t, k, j, i). GeometryError, with the path, for fewer values than
    stated.
    """
    order = _byte_order(content)
    code, bits = (int(v) for v in np.frombuffer(content, order + "i2", 2, 70))
    start = float(np.frombuffer(content, order + "f4", 1, 108)[0])
    if not 0 <= start <= len(content) or len(content) < int(start) + array.size * bits // 8:
        raise _truncated(path)
    if code in _FLOATS and array.dtype.kind == "f":
        raw = np.frombuffer(content, order + _FLOATS[code], array.size, int(start)).reshape(array.shape)
        missing = ~np.isfinite(raw)
        array[missing] = raw[missing]


@np.errstate(invalid="ignore")  # a header's inf times 0 is NaN, which the checks below refuse
def placement(content: bytes, path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return where a header puts the voxels, by its usable ``sform`` and ``qform``, and what contradicts itself.

    Forms, shape (3, 4), lead from index (i, j, k, 1) to LPS mm, sform first. GeometryError, with the path, if the
    voxel size is unusable, or a transform is singular, sheared or not finite and no other is there.
    """
    order = _byte_order(content)
    pixdim, quaternion, rows = (np.frombuffer(content, order + "f4", n, at).astype(float)
                                for n, at in ((4, 76), (6, 256), (12, 280)))
    qcode, scode = (int(v) for v in np.frombuffer(content, order + "i2", 2, 252))
    factor = _MILLIMETERS.get(content[123] & 7, 1.0)
    sizes = np.abs(pixdim[1:]) * factor
    forms, problems, notes = {}, [], []
    if scode > 0:
        forms["sform"] = _TO_LPS @ rows.reshape(3, 4) * factor
    sizes_usable = bool(np.all(np.isfinite(sizes) & (sizes > 0)))
    if qcode > 0 and sizes_usable:
        forms["qform"] = _TO_LPS @ _from_quaternion(quaternion, sizes, pixdim[0], factor)
    for name, form in list(forms.items()):
        wrong = unusable(form)
        if wrong:
            problems.append(f"{name} {wrong}")
            del forms[name]
    if problems and not forms:
        raise GeometryError(f"'{path.name}' has no usable position: its {' and its '.join(problems)}. Export the image "
                            "again, or resample it to a rectangular grid.", anchor="unusable-geometry")
    if not sizes_usable and "sform" not in forms:
        raise GeometryError(f"'{path.name}' has no usable voxel size (pixdim {_listed(pixdim[1:])}): export the image "
                            "again.", anchor="unusable-geometry")
    if np.any(pixdim[1:] < 0):
        notes.append(f"The header's voxel spacing is negative (pixdim {_listed(pixdim[1:])}); its size was used.")
    notes += [f"The header's {p}; its {next(iter(forms))} was used." for p in problems]
    length = np.linalg.norm(quaternion[:3])
    if list(forms) == ["qform"] and length ** 2 > 1 + _ROUNDING:
        notes.append(f"The header's qform is no exact rotation (quaternion of length {length:.7g}); it was "
                     "scaled to one.")
    if "sform" in forms:
        lengths = np.linalg.norm(forms["sform"][:, :3], axis=0)
        if not sizes_usable or np.any(np.abs(lengths - sizes) > _SAME_SHARE * lengths):
            notes.append(f"The header contradicts itself: voxel spacing {_listed(lengths)} mm by its sform, "
                         f"{_listed(pixdim[1:] * factor)} mm by its pixdim; the sform's was used.")
            forms.pop("qform", None)
    if not forms:
        notes.append("The header does not say how the image lies in the patient (qform and sform codes are 0).")
    return forms, notes


def distance(first: np.ndarray, second: np.ndarray, size) -> float:
    """Return the largest distance (mm) between the corners of a grid of `size` under two transforms (3, 4)."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in size], [1])).reshape(4, -1)
    return float(np.abs((first - second) @ corners).max())


def different(gap: float) -> bool:
    """Tell whether a distance between positions (mm) is more than rounding."""
    return not gap <= _SAME_MM  # NaN is different


def _byte_order(content: bytes) -> str:
    return "<" if content[:4] == _VERSION_1[0] else ">"


def _from_quaternion(values: np.ndarray, sizes: np.ndarray, qfac: float, factor: float) -> np.ndarray:
    norm = np.linalg.norm(values[:3])
    # Rounding apart, a longer vector is no rotation.
    b, c, d = values[:3] / max(norm, 1.0) if norm < 1.001 else [np.nan] * 3
    a = np.sqrt(max(0.0, 1.0 - (b * b + c * c + d * d)))
    rotation = np.array([[a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
                         [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
                         [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b]])
    scale = sizes * np.array([1.0, 1.0, -1.0 if qfac < 0 else 1.0])
    return np.column_stack([rotation * scale, values[3:] * factor])


def unusable(form: np.ndarray) -> str:
    """Say why a transform is no placement of a rectangular grid, or return an empty string."""
    if not np.all(np.isfinite(form)):
        return "is not finite, or no rotation"
    lengths = np.linalg.norm(form[:, :3], axis=0)
    if lengths.min() < 1e-6 or abs(np.linalg.det(form[:, :3] / lengths)) < 1e-3:
        return "is singular"
    axes = form[:, :3] / lengths
    skew = np.degrees(np.arcsin(np.abs(axes.T @ axes - np.eye(3)).max()))
    return f"is sheared by {skew:.1f} degrees" if skew > 0.5 else ""


def _listed(values: np.ndarray) -> str:
    return " x ".join(f"{v:.4g}" for v in values)


def _truncated(path: Path) -> GeometryError:
    return GeometryError(f"'{path.name}' is truncated or damaged: copy or export it again.", anchor="unreadable-image")
