"""Made DICOM echo series: small MR images of one decay, which a test changes as one vendor or another writes them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

TIMES = (10.0, 20.0, 40.0, 80.0)
T2 = 60.0
SLICES = 3
SIZE = 8
#: Rows to posterior, columns to caudal; slices are 4 mm apart from right to left.
ORIENTATION = [0, 1, 0, 0, 0, -1]
#: Changes an image, given its echo and slice, each counted from 0.
Edit = Callable[[Dataset, int, int], None]


def decay(time: float, t2: float = T2) -> float:
    """Signal of every voxel at a time in ms."""
    return 2000 * np.exp(-time / t2)


def fill(dataset: Dataset, value: float) -> None:
    """Give an image its pixels: one value, and two rows of background."""
    pixels = np.full((dataset.Rows, dataset.Columns), round(value), np.uint16)
    pixels[:2] = 0
    dataset.PixelData = pixels.tobytes()


def _image(storage: str, series: str) -> Dataset:
    """Return what every MR image has in its header."""
    dataset, meta = Dataset(), FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID = storage
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta = meta
    dataset.Modality, dataset.Manufacturer = "MR", "ACME"
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID, dataset.SeriesNumber = series, "1.2.3", 5
    dataset.SeriesDescription, dataset.ImageType = "sag mese", ["ORIGINAL", "PRIMARY", "M", "ND"]
    dataset.Rows = dataset.Columns = SIZE
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    return dataset


def position(place: int) -> list[float]:
    """Return the position of a slice."""
    return [4.0 * place, -8.0, 8.0]


def write_classic(folder: Path, edit: Edit | None = None, times=TIMES, slices: int = SLICES, prefix: str = "im",
                  series: str = "1.2.3.4", t2: float = T2) -> Path:
    """Write one file a slice and echo; `edit(dataset, echo, slice)` changes each before it is written."""
    folder.mkdir(parents=True, exist_ok=True)
    for echo, time in enumerate(times):
        for place in range(slices):
            dataset = _image(MRImageStorage, series)
            dataset.InstanceNumber = echo * slices + place + 1
            dataset.ScanningSequence = "SE"
            dataset.EchoTime, dataset.EchoNumbers, dataset.RepetitionTime = f"{time:g}", echo + 1, "1500"
            dataset.PixelSpacing, dataset.SliceThickness, dataset.SpacingBetweenSlices = [1, 1], 4, 4
            dataset.ImageOrientationPatient, dataset.ImagePositionPatient = ORIENTATION, position(place)
            fill(dataset, decay(time, t2))
            name = f"{prefix}{dataset.InstanceNumber:03d}.dcm"
            if edit:
                edit(dataset, echo, place)
            dataset.save_as(folder / name, enforce_file_format=True)
    return folder


def write_enhanced(path: Path, edit: Callable[[Dataset, int], None] | None = None) -> Path:
    """Write one multi-frame file; `edit(group, slice)` changes the functional groups of each frame."""
    dataset = _image(EnhancedMRImageStorage, "1.2.3.4")
    dataset.Manufacturer, dataset.InstanceNumber = "Philips Medical Systems", 1
    shared, measures, plane = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [1, 1], 4
    plane.ImageOrientationPatient = ORIENTATION
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    groups, pixels = [], []
    for time in TIMES:
        for place in range(SLICES):
            group = _functional_groups(time, place)
            if edit:
                edit(group, place)
            groups.append(group)
            pixels.append(np.full((SIZE, SIZE), round(decay(time)), np.uint16))
    dataset.SharedFunctionalGroupsSequence, dataset.PerFrameFunctionalGroupsSequence = [shared], groups
    dataset.NumberOfFrames, dataset.PixelData = len(groups), np.stack(pixels).tobytes()
    dataset.save_as(path, enforce_file_format=True)
    return path


def _functional_groups(time: float, place: int) -> Dataset:
    """Return what a frame says of itself, in the macros that the standard has for it."""
    group, plane, echo, values, kind = Dataset(), Dataset(), Dataset(), Dataset(), Dataset()
    plane.ImagePositionPatient, echo.EffectiveEchoTime = position(place), time
    values.RescaleSlope, values.RescaleIntercept, values.RescaleType = "1", "0", "US"
    kind.FrameType, kind.ComplexImageComponent = ["ORIGINAL", "PRIMARY", "T2", "NONE"], "MAGNITUDE"
    group.PlanePositionSequence, group.MREchoSequence = [plane], [echo]
    group.PixelValueTransformationSequence, group.MRImageFrameTypeSequence = [values], [kind]
    return group
