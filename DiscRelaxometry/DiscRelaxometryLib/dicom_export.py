"""Export maps as DICOM Parametric Maps and label images as DICOM Segmentations (highdicom).

With the source DICOM the objects join its study, and carry the patient and study attributes of that study and nothing
else of it. Without it they form a synthetic study of their own. See ``Docs/method/dicom-export.md``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import __version__
from .atomic import atomic_path, check_folder
from .echo import list_files
from .errors import DiscRelaxometryError, SegmentationError
from .image import Geometry, Image, require_written
from .labels import BY_VALUE
from .progress import ProgressCallback, silent
from .quantities import QUANTITIES

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_MR = "1.2.840.10008.5.1.4.1.1.4"
#: What highdicom copies of the source's scanner and this project does not pass on.
_WHEREABOUTS = ("InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName", "StationName", "OperatorsName",
                "DeviceSerialNumber")


def export_study(folder: str | os.PathLike, maps: Mapping[str, Image], labels: Image | None = None,
                 source: str | os.PathLike | Iterable | None = None, subject: str = "anonymous",
                 algorithm: str | None = None, simulated: bool = False,
                 progressCallback: ProgressCallback = silent) -> list[Path]:
    """Export maps and a segmentation into one study.

    Parameters
    ----------
    folder : path
        Receives ``<quantity>.dcm`` and ``segmentation.dcm``.
    maps : dict of Image
        Keyed by quantity (``T1rho``, ``T2``, ``M0``, ...).
    labels : Image, optional
        Label image with the project's values.
    source : path or list of paths, optional
        DICOM images of the examination; the objects join their study.
    subject : str
        Patient ID of the synthetic study, where there is no source.
    algorithm : str, optional
        Name of the algorithm that made the segmentation; without it the segments are coded as manual.
    simulated : bool
        Say so in the series descriptions and, without a source, in the patient's name.
    progressCallback : callable, optional

    Raises
    ------
    DiscRelaxometryError
        If the source is no DICOM study, or highdicom is not installed.
    SegmentationError
        If the segmentation is empty or holds unknown values.
    """
    folder = Path(folder)
    images = [*maps.values(), *([labels] if labels is not None else [])]
    if not images:
        raise DiscRelaxometryError("There is nothing to export: give a map or a segmentation.")
    check_folder(folder)
    datasets = source_datasets(source) if source is not None else None
    study = _uid("study", subject, repr([i.geometry for i in images]))
    paths = []
    for step, (key, image) in enumerate(maps.items()):
        progressCallback(step / len(images), f"Exporting {key}")
        references = datasets or synthetic_source(image.geometry, subject, study, simulated)
        dataset = parametric_map(image, key, references, 101 + step, datasets is not None)
        paths.append(_save(_labelled(dataset, simulated), folder / f"{key}.dcm"))
    if labels is not None:
        progressCallback(len(maps) / len(images), "Exporting the segmentation")
        references = datasets or synthetic_source(labels.geometry, subject, study, simulated)
        dataset = segmentation(labels, references, 100, algorithm, datasets is not None)
        paths.append(_save(_labelled(dataset, simulated), folder / "segmentation.dcm"))
    return paths


def parametric_map(image: Image, key: str, source: list[Dataset], series_number: int = 101,
                   real_source: bool = True) -> Dataset:
    """Return a float Parametric Map of a quantity, in its unit and with its DICOM code; NaN stays NaN.

    It joins the study of the images `source`; with `real_source` false, which says that they do not exist as files,
    references to them are left out.
    """
    hd = _highdicom()
    from highdicom.pm import ParametricMap, RealWorldValueMapping

    if key not in QUANTITIES:
        raise DiscRelaxometryError(f"'{key}' is no known quantity; known are {', '.join(QUANTITIES)}.")
    quantity = QUANTITIES[key]
    array = np.asarray(image.array, np.float32)
    finite = array[np.isfinite(array)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    mapping = RealWorldValueMapping(
        lut_label=key[:16], lut_explanation=quantity.description[:64], slope=1.0, intercept=0.0,
        unit=hd.sr.CodedConcept(*quantity.unit_code), value_range=(low, high),
        quantity_definition=hd.sr.CodedConcept(*quantity.code))
    volume = _volume(array, image.geometry, source[0].FrameOfReferenceUID)
    dataset = ParametricMap(
        source_images=source, pixel_array=volume, real_world_value_mappings=[mapping],
        contains_recognizable_visual_features=False,
        content_label="".join(c if c.isalnum() else "_" for c in key.upper())[:16],
        voi_lut_transformations=[hd.VOILUTTransformation(float(np.mean(quantity.window)),
                                                         float(np.ptp(quantity.window)))],
        content_description=quantity.description[:64], series_description=f"{quantity.name} map",
        **_common(source, f"{key} map", array, series_number))
    _describe_anatomy(dataset)
    _sort_along_normal(dataset)
    return _trimmed(dataset, real_source)


def segmentation(labels: Image, source: list[Dataset], series_number: int = 100, algorithm: str | None = None,
                 real_source: bool = True) -> Dataset:
    """Return a binary Segmentation with SNOMED CT codes; parameters as for :func:`parametric_map`.

    SegmentationError if the image is empty or holds values that ``labels.py`` does not know.
    """
    hd = _highdicom()
    from highdicom.seg import Segmentation, SegmentDescription

    values = [int(v) for v in np.unique(labels.array) if v != 0]
    unknown = [v for v in values if v not in BY_VALUE]
    if unknown or not values:
        raise SegmentationError(f"The segmentation holds unknown label values {unknown}: import it with its own label "
                                "table first." if unknown else "The segmentation is empty: there is nothing to export.")
    identification = hd.AlgorithmIdentificationSequence(
        algorithm, family=hd.sr.CodedConcept("123109", "DCM", "Artificial Intelligence"),
        version=__version__) if algorithm else None
    category = hd.sr.CodedConcept("123037004", "SCT", "Anatomical Structure")
    descriptions, stack = [], np.zeros((*labels.array.shape, len(values)), bool)
    for number, value in enumerate(values, start=1):
        structure = BY_VALUE[value]
        descriptions.append(SegmentDescription(
            number, structure.name, category, hd.sr.CodedConcept(structure.snomed[0], "SCT", structure.snomed[1]),
            "AUTOMATIC" if algorithm else "MANUAL", identification, tracking_id=structure.key,
            tracking_uid=_uid(str(source[0].StudyInstanceUID), structure.key),
            display_color=hd.color.CIELabColor.from_rgb(*structure.color)))
        stack[..., number - 1] = labels.array == value
    volume = _volume(stack, labels.geometry, source[0].FrameOfReferenceUID)
    dataset = Segmentation(
        source_images=source, pixel_array=volume, segmentation_type="BINARY", segment_descriptions=descriptions,
        content_label="DISCS", content_description="Lumbar discs and neighboring structures",
        series_description="Disc segmentation", **_common(source, "segmentation", labels.array, series_number))
    return _trimmed(dataset, real_source)


def source_datasets(source: str | os.PathLike | Iterable) -> list:
    """Return the headers of the DICOM images in a folder or list, all of one study; an error if there is none."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    datasets = []
    for file in list_files(source):
        try:
            dataset = pydicom.dcmread(file, stop_before_pixels=True)
        except InvalidDicomError:
            continue
        except Exception as error:
            raise DiscRelaxometryError(f"'{file.name}' is truncated or damaged: copy or export it again.",
                                       anchor="truncated") from error
        if "Rows" in dataset and "FrameOfReferenceUID" in dataset:
            datasets.append(dataset)
    if not datasets:
        raise DiscRelaxometryError("The source folder holds no DICOM image with a frame of reference: choose the "
                                   "folder of the examination, or export without a source.")
    for keyword, what in (("StudyInstanceUID", "studies"), ("FrameOfReferenceUID", "frames of reference")):
        found = {str(d.get(keyword)) for d in datasets}
        if len(found) > 1:
            raise DiscRelaxometryError(f"The source images belong to {len(found)} {what}: choose the images of one.")
    return datasets


def synthetic_source(geometry: Geometry, subject: str = "anonymous", study: str | None = None,
                     simulated: bool = False) -> list[Dataset]:
    """Return in-memory MR headers, one a slice, of a synthetic study with no one's identity."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID

    study = study or _uid("study", subject, repr(geometry))
    matrix, now = geometry.matrix3, datetime.now(UTC)
    datasets = []
    for k in range(geometry.size[2]):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.1")
        dataset.SOPClassUID, dataset.Modality = _MR, "MR"
        dataset.SOPInstanceUID = _uid(study, repr(geometry), str(k))
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, _uid(study, "source", repr(geometry))
        dataset.FrameOfReferenceUID = _uid(study, "frame of reference")
        dataset.PatientID, dataset.PatientName = subject, f"{subject}^SIMULATED" if simulated else f"{subject}^"
        dataset.PatientBirthDate, dataset.PatientSex = "", ""
        dataset.StudyDate, dataset.StudyTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
        dataset.AccessionNumber, dataset.StudyID, dataset.ReferringPhysicianName = "", "1", ""
        dataset.PositionReferenceIndicator = None
        dataset.SeriesNumber, dataset.InstanceNumber = 1, k + 1
        dataset.Rows, dataset.Columns = geometry.size[1], geometry.size[0]
        dataset.ImagePositionPatient = geometry.index_to_world((0, 0, k)).tolist()
        dataset.ImageOrientationPatient = [*(matrix[:, 0] / geometry.spacing[0]), *(matrix[:, 1] / geometry.spacing[1])]
        dataset.PixelSpacing = [geometry.spacing[1], geometry.spacing[0]]
        dataset.SliceThickness = geometry.spacing[2]
        datasets.append(dataset)
    return datasets


def _volume(array: np.ndarray, geometry: Geometry, frame_of_reference: str):
    """Return a highdicom volume; slices of a left-handed grid are listed from the other end, in the same place."""
    hd = _highdicom()
    matrix = geometry.matrix3
    if np.linalg.det(matrix) < 0:
        array = array[::-1]
        origin = geometry.index_to_world((0, 0, geometry.size[2] - 1))
        matrix = matrix * np.array([1.0, 1.0, -1.0])
    else:
        origin = np.array(geometry.origin)
    affine = np.eye(4)
    # Columns of the affine follow the array's axes: slice, row, column.
    affine[:3, :3], affine[:3, 3] = matrix[:, ::-1], origin
    return hd.Volume(np.ascontiguousarray(array), affine, coordinate_system="PATIENT",
                     frame_of_reference_uid=str(frame_of_reference),
                     channels={"SegmentNumber": list(range(1, array.shape[3] + 1))} if array.ndim == 4 else None)


def _common(source: list[Dataset], what: str, array: np.ndarray, series_number: int) -> dict:
    study = str(source[0].StudyInstanceUID)
    content = sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return {"series_instance_uid": _uid(study, what, content, "series"), "series_number": series_number,
            "sop_instance_uid": _uid(study, what, content), "instance_number": 1, "manufacturer": "DiscRelaxometry",
            "manufacturer_model_name": "DiscRelaxometry", "software_versions": __version__,
            "device_serial_number": "0", "content_creator_name": "DiscRelaxometry^"}


def _describe_anatomy(dataset: Dataset) -> None:
    """Name the lumbar spine as the frames' anatomy, which is not one of a pair."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    hd = _highdicom()
    anatomy = Dataset()
    anatomy.FrameLaterality = "U"
    anatomy.AnatomicRegionSequence = Sequence([hd.sr.CodedConcept("122496007", "SCT", "Lumbar spine")])
    dataset.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = Sequence([anatomy])


def _sort_along_normal(dataset: Dataset) -> None:
    """List frames by increasing position along row x column; dcmqi, Slicer's importer, takes that order for granted."""
    shared = dataset.SharedFunctionalGroupsSequence[0]
    row, column = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    groups = list(dataset.PerFrameFunctionalGroupsSequence)
    along = [np.array(g.PlanePositionSequence[0].ImagePositionPatient, float) @ np.cross(row, column) for g in groups]
    order = np.argsort(along, kind="stable")
    pixels = np.frombuffer(dataset.FloatPixelData, "<f4").reshape(len(groups), dataset.Rows, dataset.Columns)
    dataset.FloatPixelData = np.ascontiguousarray(pixels[order]).tobytes()
    dataset.PerFrameFunctionalGroupsSequence = type(dataset.PerFrameFunctionalGroupsSequence)(
        [groups[i] for i in order])


def _trimmed(dataset: Dataset, real_source: bool) -> Dataset:
    """Remove the scanner's whereabouts, and references to source images that do not exist."""
    for equipment in dataset.get("ContributingEquipmentSequence", []):
        for keyword in _WHEREABOUTS:
            if keyword in equipment:
                del equipment[keyword]
    if real_source:
        return dataset
    for keyword in ("ReferencedSeriesSequence", "ReferencedImageSequence", "SourceImageSequence"):
        if keyword in dataset:
            del dataset[keyword]
    for group in [*dataset.PerFrameFunctionalGroupsSequence, *dataset.SharedFunctionalGroupsSequence]:
        if "DerivationImageSequence" in group:
            del group.DerivationImageSequence
    return dataset


def _labelled(dataset: Dataset, simulated: bool) -> Dataset:
    if simulated:
        dataset.SeriesDescription = f"SIMULATED {dataset.SeriesDescription}"[:64]
        dataset.ContentDescription = f"SIMULATED {dataset.ContentDescription}"[:64]
    return dataset


def _save(dataset: Dataset, path: Path) -> Path:
    from pydicom import dcmread

    with atomic_path(path) as temporary:
        dataset.save_as(temporary, enforce_file_format=True)
        written, pixels = dcmread(temporary), max(dataset.keys())
        require_written(written.keys() == dataset.keys() and written[pixels].value == dataset[pixels].value, path)
    return path


def _uid(*parts: str) -> str:
    """Return a UID that is the same for the same parts, so that a repeated export replaces rather than duplicates."""
    from pydicom.uid import generate_uid

    return generate_uid(entropy_srcs=["DiscRelaxometry", *parts])


def _highdicom():
    try:
        import highdicom
    except ImportError:
        raise DiscRelaxometryError("DICOM export needs the package highdicom: install it with "
                                   "pip install highdicom.") from None
    return highdicom
