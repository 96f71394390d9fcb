"""Synthetic DICOM echo series in the conventions of three vendors; signal is an exact mono-exponential."""

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

ROWS, COLUMNS, SLICES = 6, 5, 3
#: Oblique sagittal: rows to posterior, columns to caudal, tilted.
ORIENTATION = np.array([0.0, 0.9986295348, 0.0523359562, 0.0, 0.0523359562, -0.9986295348])
FIRST = np.array([-8.0, -60.0, 40.0])
SPACING = (0.75, 0.625, 4.0)
MR = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED = "1.2.840.10008.5.1.4.1.1.4.1"


def signal(time_ms: float, position: int, t: float = 60.0) -> np.ndarray:
    """Signal of one slice, different in every voxel."""
    base = 1000 + 100 * position + np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS)
    return base * np.exp(-time_ms / t)


def position(number: int) -> np.ndarray:
    return FIRST + number * SPACING[2] * np.cross(ORIENTATION[:3], ORIENTATION[3:])


def base(vendor: str = "SIEMENS", series: str = "1.2.3", sop: str = MR, **values) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop, meta.MediaStorageSOPInstanceUID
    dataset.Modality, dataset.Manufacturer = "MR", vendor
    dataset.SeriesInstanceUID, dataset.SeriesNumber = series, 7
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = "Doe^Jane", "ID4711", "19700101"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = ROWS, COLUMNS
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    for key, value in values.items():
        setattr(dataset, key, value)
    return dataset


def classic(number: int, stored: np.ndarray, instance: int, vendor: str = "SIEMENS", **values) -> FileDataset:
    """One single-frame image at slice `number` with stored values."""
    dataset = base(vendor, **values)
    dataset.InstanceNumber = instance
    dataset.ImagePositionPatient = [f"{v:.6f}" for v in position(number)]
    dataset.ImageOrientationPatient = [f"{v:.8f}" for v in ORIENTATION]
    dataset.PixelSpacing, dataset.SliceThickness = [SPACING[0], SPACING[1]], 3.5
    dataset.PixelData = np.round(stored).astype("<u2").tobytes()
    return dataset


def save(dataset: FileDataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_classic(folder: Path, times, mark, seed: int = 0, slices: int = SLICES, **values) -> list[Path]:
    """Write one file a slice and time under shuffled names; `mark(dataset, time)` puts the time into the header."""
    jobs = [(n, t) for t in times for n in range(slices)]
    names = np.random.default_rng(seed).permutation(len(jobs))
    paths = []
    for instance, ((n, t), name) in enumerate(zip(jobs, names), start=1):
        dataset = classic(n, signal(t, n), instance, **values)
        mark(dataset, t)
        paths.append(save(dataset, folder / f"IM{name:04d}"))
    return paths


def enhanced(times, vendor: str = "SIEMENS", philips_scale: bool = False, **values) -> FileDataset:
    """One enhanced multi-frame file; frames in an order that is neither position nor time."""
    dataset = base(vendor, sop=ENHANCED, **values)
    jobs = [(n, t) for n in range(SLICES) for t in times]
    jobs = [jobs[i] for i in np.random.default_rng(3).permutation(len(jobs))]
    dataset.NumberOfFrames = len(jobs)
    shared = Dataset()
    measures, orientation = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [SPACING[0], SPACING[1]], 3.5
    orientation.ImageOrientationPatient = [f"{v:.8f}" for v in ORIENTATION]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = Sequence([measures]), Sequence([orientation])
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    groups, stored = [], []
    for index, (n, t) in enumerate(jobs):
        group, plane, echo, pixel, kind = Dataset(), Dataset(), Dataset(), Dataset(), Dataset()
        plane.ImagePositionPatient = [f"{v:.6f}" for v in position(n)]
        echo.EffectiveEchoTime = float(t)
        # Each frame has its own display scaling, as Philips writes it.
        slope, scale = (1.0 + 0.1 * index, 0.02) if philips_scale else (0.5, 1.0)
        pixel.RescaleSlope, pixel.RescaleIntercept, pixel.RescaleType = f"{slope:g}", "0", "US"
        kind.FrameType = ["ORIGINAL", "PRIMARY", "M", "NONE"]
        kind.ComplexImageComponent = "MAGNITUDE"
        group.PlanePositionSequence, group.MREchoSequence = Sequence([plane]), Sequence([echo])
        group.PixelValueTransformationSequence = Sequence([pixel])
        group.MRImageFrameTypeSequence = Sequence([kind])
        if philips_scale:
            private = Dataset()
            private.private_block(0x2005, "Philips MR Imaging DD 001", create=True).add_new(0x0E, "FL", scale)
            group.private_block(0x2005, "Philips MR Imaging DD 005", create=True).add_new(0x0F, "SQ",
                                                                                         Sequence([private]))
            # FP = SV / SS for intercept 0: what the reader has to undo.
            stored.append(np.round(signal(t, n) * scale * 20) / 1)
        else:
            stored.append(np.round(signal(t, n) / slope))
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(groups)
    dataset.PixelData = np.array(stored).astype("<u2").tobytes()
    return dataset


def expected(times) -> np.ndarray:
    return np.array([[signal(t, n) for n in range(SLICES)] for t in sorted(times)])
