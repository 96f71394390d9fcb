"""DICOM files: finding them, opening them with or without preamble, and decoding their pixels."""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ..errors import EchoSeriesError

_MR_CLASSES = {"1.2.840.10008.5.1.4.1.1.4": "MR Image", "1.2.840.10008.5.1.4.1.1.4.1": "Enhanced MR Image",
               "1.2.840.10008.5.1.4.1.1.4.4": "Legacy Converted Enhanced MR Image"}


def list_files(path: str | os.PathLike | Iterable[str | os.PathLike]) -> list[Path]:
    """Return the files of a folder (and its subfolders), of a DICOMDIR, of one path, or of a list of paths.

    Raises
    ------
    EchoSeriesError
        If a path does not exist, or a DICOMDIR names files that are not there.
    """
    if not isinstance(path, (str, os.PathLike)):
        return [file for one in path for file in list_files(one)]
    path = Path(path)
    if not path.exists():
        raise EchoSeriesError(f"'{path}' does not exist.")
    if path.is_file():
        return _files_of_directory(path) if _is_directory(path) else [path]
    return sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith(".") and not _is_directory(p))


def _is_directory(path: Path) -> bool:
    """Tell by a file's content whether it is a DICOMDIR; what cannot be read is one by its name."""
    try:
        dataset = open_dicom(path, stop_before_pixels=True, specific_tags=["DirectoryRecordSequence"])
    except Exception:
        return path.name.upper() == "DICOMDIR"
    return dataset is not None and "DirectoryRecordSequence" in dataset


def _files_of_directory(path: Path) -> list[Path]:
    """Return the image files that a DICOMDIR names."""
    try:
        records = open_dicom(path).DirectoryRecordSequence
        names = [r.ReferencedFileID for r in records if r.get("ReferencedFileID")]
    except Exception as error:
        raise damaged(path) from error
    # On a disc names are in capitals; systems may show them in small letters.
    present = {p.relative_to(path.parent).as_posix().upper(): p for p in path.parent.rglob("*") if p.is_file()}
    wanted = ["/".join([n] if isinstance(n, str) else n).upper() for n in names]
    missing = [n for n in wanted if n not in present]
    if missing:
        raise EchoSeriesError(f"{len(missing)} of {len(wanted)} files that '{path.name}' names are not there, the "
                              f"first is {missing[0]}: copy the whole disc.", anchor="missing-echo")
    return [present[n] for n in wanted]


def open_dicom(file: Path, **options):
    """Return a file's dataset, also where the preamble is missing, or None if the file is no DICOM."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        return pydicom.dcmread(file, **options)
    except InvalidDicomError:
        with open(file, "rb") as stream:
            group = stream.read(2)
    # Without preamble a file begins with an element of group 2 or 8.
    if group not in (b"\x02\0", b"\x08\0", b"\0\x08"):
        return None
    dataset = pydicom.dcmread(file, force=True, **options)
    return dataset if {"Rows", "SOPClassUID", "DirectoryRecordSequence"} & set(dataset.dir()) else None


def mr_header(file: Path):
    """Return an MR image's dataset without pixels, or None if the file is something else.

    EchoSeriesError if the image is not a plain gray one, or its header ends early.
    """
    dataset = open_dicom(file, stop_before_pixels=True)
    if dataset is None:
        return None
    storage = dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID")
    if str(storage or "") not in ("", *_MR_CLASSES) or str(dataset.get("Modality") or "MR") != "MR":
        return None
    if storage is None and "Rows" not in dataset:
        raise damaged(file)
    if dataset.get("SamplesPerPixel", 1) != 1 or dataset.get("PhotometricInterpretation", "") != "MONOCHROME2":
        raise EchoSeriesError(f"'{file.name}' is {dataset.get('PhotometricInterpretation', 'of unknown color')}, not a "
                              "plain gray image (MONOCHROME2): export the original images again.", anchor="color")
    if not dataset.get("Rows") or not dataset.get("Columns"):
        raise damaged(file)
    return dataset


def damaged(file: Path) -> EchoSeriesError:
    """Return the error of a file that ends early or cannot be parsed."""
    return EchoSeriesError(f"'{file.name}' is truncated or damaged: copy or export it again.", anchor="truncated")


def read_pixels(file: Path) -> tuple[np.ndarray, int | None, int]:
    """Return a file's stored values (frame, row, column), its pixel padding value and the largest storable value.

    EchoSeriesError if pixels are absent, fewer than the header says, or compressed in a way that cannot be decoded.
    """
    from pydicom import uid

    dataset = open_dicom(file)
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        dataset.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian if implicit else \
            uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
    try:
        pixels = dataset.pixel_array
    except (NotImplementedError, RuntimeError) as error:
        raise EchoSeriesError(f"'{file.name}' is compressed ({dataset.file_meta.TransferSyntaxUID.name}) and cannot "
                              "be decoded here: export it uncompressed.", anchor="compressed") from error
    except Exception as error:
        raise damaged(file) from error
    padding = dataset.get("PixelPaddingValue")
    bits = int(dataset.get("BitsStored") or dataset.BitsAllocated) - int(bool(dataset.get("PixelRepresentation")))
    return (pixels.reshape(-1, dataset.Rows, dataset.Columns), int(padding) if padding is not None else None,
            2 ** bits - 1)
