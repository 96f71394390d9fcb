"""Make the embedded sample data from the SPIDER people: one person for a first try, and the real cohort.

Usage: ``python Training/make_sample_data.py SPIDER_FOLDER [--repository .]`` where SPIDER_FOLDER holds
``sub-XXX_T2w.nii.gz``, ``sub-XXX_dseg.nii.gz``, ``participants.tsv`` and ``gradings.tsv``.

The images keep their slices and their signal (uint8, not rescaled); in-plane they are cropped to the lumbar spine and
resampled to 1 mm. Every file is written without a time stamp, so that a second run gives the same bytes.
"""

import argparse
import gzip
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from DiscRelaxometryLib.atomic import write_json, write_text
from DiscRelaxometryLib.labels import LUMBAR_LEVELS, disc_value
from DiscRelaxometryLib.tables import read_tsv

ROOT = Path(__file__).resolve().parent.parent
SAMPLE_PERSON = "sub-078"
SPACING = 1.0  # mm in-plane for the cohort
SMOOTHING = 0.4  # mm, standard deviation; against aliasing when going from 0.6 to 1 mm
LICENCE = "CC-BY-4.0"
SOURCE = ("van der Graaf JW, van Hooff ML, Buckens CFM, et al. Lumbar spine segmentation in MR images: a dataset and a "
          "public benchmark. Sci Data 2024;11:264. doi:10.1038/s41597-024-03090-w")
DATA_DOI = "https://doi.org/10.5281/zenodo.10159290"
GRADINGS = {"Modic": "modic", "UP endplate": "upper_endplate", "LOW endplate": "lower_endplate",
            "Spondylolisthesis": "spondylolisthesis", "Disc herniation": "herniation",
            "Disc narrowing": "narrowing", "Disc bulging": "bulging", "Pfirrmann grade": "pfirrmann"}


def main() -> None:
    """Write both sets into the repository's Resources."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("spider", type=Path)
    parser.add_argument("--repository", type=Path, default=ROOT)
    options = parser.parse_args()
    sample = options.repository / "DiscRelaxometry" / "Resources" / "SampleData"
    cohort = options.repository / "DiscStats" / "Resources" / "SampleData" / "spider-cohort"
    make_sample(options.spider, sample)
    make_cohort(options.spider, cohort)
    for folder in (sample, cohort):
        size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
        print(f"{folder.relative_to(options.repository)}: {size / 1e6:.1f} MB")


def read_person(folder: Path, person: str) -> tuple[sitk.Image, sitk.Image]:
    """Return image and reference mask, after checking that their header agrees with the anatomy."""
    image = sitk.ReadImage(str(folder / f"{person}_T2w.nii.gz"))
    mask = sitk.ReadImage(str(folder / f"{person}_dseg.nii.gz"))
    check_orientation(mask, person)
    return image, mask


def check_orientation(mask: sitk.Image, person: str) -> None:
    """Raise if the header contradicts anatomy: disc 12 lies above disc 11, and the canal behind the discs."""
    array = sitk.GetArrayFromImage(mask)

    def center(values):
        index = np.argwhere(np.isin(array, values)).mean(0)[::-1]
        return np.array(mask.TransformContinuousIndexToPhysicalPoint(index.tolist()))

    rows = np.argwhere(array >= 11)[:, 0]
    array[:rows.min()] = 0  # the sacral canal runs backward; compare at the height of the discs
    if center([12])[2] <= center([11])[2] or center([2])[1] <= center(list(range(11, 20)))[1]:
        raise ValueError(f"{person}: the header's superior or posterior direction contradicts the anatomy.")


def lumbar_box(mask: np.ndarray, behind: int, front: int, below: int, above: int) -> tuple[slice, slice]:
    """Return the (k, j) box around the lumbar discs and the canal beside them, with margins in voxels."""
    discs = np.argwhere((mask >= disc_value("L5-S1")) & (mask <= disc_value("L1-L2")))
    k0, k1 = max(0, discs[:, 0].min() - below), min(mask.shape[0], discs[:, 0].max() + above + 1)
    near = np.argwhere((mask[k0:k1] == 2) | (mask[k0:k1] >= 11))
    return slice(k0, k1), slice(max(0, near[:, 1].min() - behind), min(mask.shape[1], near[:, 1].max() + front + 1))


def crop(image: sitk.Image, box: tuple[slice, slice]) -> sitk.Image:
    """Return all slices of an image inside a (k, j) box; positions are kept."""
    k, j = box
    return image[:, int(j.start):int(j.stop), int(k.start):int(k.stop)]


def to_spacing(image: sitk.Image, spacing: float, labels: bool) -> sitk.Image:
    """Resample in-plane (j and k), keeping the slices; labels by their partial volumes, signal smoothed first."""
    old = image.GetSpacing()
    size = [image.GetSize()[0]] + [int(np.floor(n * s / spacing)) for n, s in zip(image.GetSize()[1:], old[1:])]
    # Centers of the first voxels differ by half the difference of the spacings.
    origin = image.TransformContinuousIndexToPhysicalPoint([0.0] + [0.5 * (spacing / s - 1) for s in old[1:]])
    if labels:
        interpolator = sitk.sitkLabelGaussian
    else:
        image = sitk.Cast(image, sitk.sitkFloat32)
        for axis in (1, 2):
            image = sitk.RecursiveGaussian(image, SMOOTHING, direction=axis)
        interpolator = sitk.sitkLinear
    result = sitk.Resample(image, size, sitk.Transform(3, sitk.sitkIdentity), interpolator, origin,
                           (old[0], spacing, spacing), image.GetDirection(), 0)
    return sitk.Cast(sitk.Clamp(sitk.Round(result), lowerBound=0, upperBound=255) if not labels else result,
                     sitk.sitkUInt8)


def write_nifti(image: sitk.Image, path: Path) -> None:
    """Write a compressed NIfTI whose bytes depend on the content alone (gzip without name and time)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for key in image.GetMetaDataKeys():
        image.EraseMetaData(key)
    plain = path.with_name(f"{path.name[:-7]}.partial.nii")
    sitk.WriteImage(image, str(plain))
    path.write_bytes(gzip.compress(plain.read_bytes(), 9, mtime=0))
    plain.unlink()


def make_sample(spider: Path, folder: Path) -> None:
    """Write one person at full resolution, cropped in front of and behind the spine."""
    image, mask = read_person(spider, SAMPLE_PERSON)
    box = lumbar_box(sitk.GetArrayFromImage(mask), behind=70, front=28, below=65, above=400)
    name = f"spider-{SAMPLE_PERSON}"
    write_nifti(crop(image, box), folder / f"{name}_T2w.nii.gz")
    write_nifti(crop(mask, box), folder / f"{name}_dseg.nii.gz")
    row = next(r for r in read_tsv(spider / "participants.tsv").rows if r["participant_id"] == SAMPLE_PERSON)
    write_json(folder / f"{name}_T2w.json", dict(sidecar(row), License=LICENCE, Source=SOURCE, SourceDataset=DATA_DOI))


def sidecar(row: dict) -> dict:
    """Return BIDS metadata of the T2w image, times in seconds."""
    return {"EchoTime": float(row["echo_time_ms"]) / 1000, "RepetitionTime": float(row["repetition_time_ms"]) / 1000,
            "MagneticFieldStrength": float(row["field_T"]), "PulseSequenceDetails": "3-D T2 SPACE, sagittal",
            "Units": "arbitrary", "LeftRightVerified": False}


def make_cohort(spider: Path, folder: Path) -> None:
    """Write the people at 1 mm in BIDS layout, with tables and attribution."""
    rows = read_tsv(spider / "participants.tsv").rows
    table = []
    for row in rows:
        person = row["participant_id"]
        image, mask = read_person(spider, person)
        array, signal = sitk.GetArrayFromImage(mask), sitk.GetArrayFromImage(image)
        box = lumbar_box(array, behind=10, front=14, below=42, above=36)
        canal = array[box[0]] == 2
        table.append({**{k: row[k] for k in ("participant_id", "age", "sex", "field_T", "echo_time_ms",
                                             "repetition_time_ms")},
                      "canal_clipped": f"{np.mean(signal[box[0]][canal] == 255):.3f}",
                      **{k: v for k, v in row.items() if k.startswith("pfirrmann_")}})
        write_nifti(to_spacing(crop(image, box), SPACING, False), folder / person / "anat" / f"{person}_T2w.nii.gz")
        write_json(folder / person / "anat" / f"{person}_T2w.json", sidecar(row))
        write_nifti(to_spacing(crop(mask, box), SPACING, True),
                    folder / "derivatives" / "reference" / person / "anat" / f"{person}_dseg.nii.gz")
    write_table(folder / "participants.tsv", table)
    # One row per disc: BIDS's phenotype tables have one per person.
    write_table(folder / "sourcedata" / "gradings.tsv", gradings(spider, {r["participant_id"] for r in rows}))
    write_descriptions(folder, len(rows))


def write_table(path: Path, rows: list[dict]) -> None:
    """Write rows as TSV."""
    lines = ["\t".join(rows[0])] + ["\t".join(str(v) for v in r.values()) for r in rows]
    write_text(path, "\n".join(lines) + "\n")


def gradings(spider: Path, people: set[str]) -> list[dict]:
    """Return SPIDER's gradings by disc, with level names (grading 1 is the lowest disc) for the lumbar discs."""
    names = {n + 1: level for n, level in enumerate(reversed(LUMBAR_LEVELS))} | {
        6: "T12-L1", 7: "T11-T12", 8: "T10-T11", 9: "T9-T10"}
    rows = []
    for row in read_tsv(spider / "gradings.tsv").rows:
        person, number = f"sub-{int(row['Patient']):03d}", int(row["IVD label"])
        if person in people and number in names:
            rows.append({"participant_id": person, "level": names[number],
                         **{new: row[old] for old, new in GRADINGS.items()}})
    return sorted(rows, key=lambda r: (r["participant_id"], -list(names.values()).index(r["level"])))


def write_descriptions(folder: Path, count: int) -> None:
    """Write dataset descriptions, column descriptions and the README."""
    common = {"BIDSVersion": "1.10.0", "License": LICENCE, "Authors": ["SPIDER (van der Graaf et al.)"],
              "HowToAcknowledge": SOURCE, "SourceDatasets": [{"URL": DATA_DOI}]}
    write_json(folder / "dataset_description.json", {
        "Name": "Lumbar spine T2w of SPIDER, cropped and reduced to 1 mm", "DatasetType": "raw", **common})
    write_json(folder / "derivatives" / "reference" / "dataset_description.json", {
        "Name": "Reference segmentation of SPIDER (disc levels in this project's values)",
        "DatasetType": "derivative", "GeneratedBy": [{"Name": "SPIDER annotators; resampled by "
                                                              "Training/make_sample_data.py"}], **common})
    levels = {f"pfirrmann_{level.replace('-', '')}": {"Description": f"Pfirrmann grade of {level}, 1 to 5"}
              for level in LUMBAR_LEVELS}
    write_json(folder / "participants.json", {
        "age": {"Description": "Age", "Units": "year"}, "sex": {"Levels": {"F": "female", "M": "male"}},
        "field_T": {"Description": "Field strength", "Units": "T"},
        "echo_time_ms": {"Units": "ms"}, "repetition_time_ms": {"Units": "ms"},
        "canal_clipped": {"Description": "Share of the reference canal's voxels at 255, the largest 8-bit value: above "
                                         "0.1 the CSF is clipped, and signal normalized by it is too high"}, **levels})
    write_json(folder / "sourcedata" / "gradings.json", {
        "MeasurementToolMetadata": {"Description": "Radiological gradings of SPIDER; see the publication"},
        "level": {"Description": "Disc; counted from the lowest, as in the reference segmentation"},
        "modic": {"Description": "Modic type 0 to 3"}, "pfirrmann": {"Description": "Pfirrmann grade 1 to 5"},
        **{name: {"Description": f"{name.replace('_', ' ').capitalize()}: 0 absent, 1 present"}
           for name in GRADINGS.values() if name not in ("modic", "pfirrmann")}})
    names = {1: "vertebra", 2: "spinal canal", 3: "disc fragment without level",
             **{disc_value(level): level for level in reversed(LUMBAR_LEVELS)}, 16: "T12-L1", 17: "T11-T12"}
    write_table(folder / "derivatives" / "reference" / "dseg.tsv",
                [{"index": value, "name": name} for value, name in names.items()])
    write_json(folder / "derivatives" / "reference" / "dseg.json", {
        "Description": "Integer labels; names in dseg.tsv", "Manual": True,
        "SpatialReference": "orig"})
    write_text(folder / "README.md", README.format(count=count, source=SOURCE, doi=DATA_DOI))


README = """# Lumbar spine T2w of {count} people with low back pain (SPIDER)

Real people, T2 SPACE (1.5 T, one at 3 T), sagittal. From SPIDER, licence CC BY 4.0:

> {source} Data: {doi}

**Changed from the source:** the 13 to 30 mid-sagittal slices alone, 8-bit, in-plane cropped to the lumbar spine and
resampled to 1 mm (slices kept at 0.9 mm); reference masks (`derivatives/reference`) with disc values 11 = L5-S1 upward,
slightly edited by the authors of the public repositories through which the data came, and resampled the same way.
Discs are cut laterally by the slab. Made by `Training/make_sample_data.py`.

- **Orientation.** Superior and posterior of the header were checked against the anatomy of every person. Left and right
  could **not** be verified: do not use these images for questions of side.
- **Slice spacing** is the publication's 0.9 mm; the DICOM headers are said to state 1.0 mm.
- **Clipped signal.** In about a third of the people the CSF is clipped at 255 (`canal_clipped` in `participants.tsv`).
  Signal divided by clipped CSF is too high: use the column as a covariate or leave those people out.
- **T2-weighted signal is not T2.** There is no relaxometry in these data.
- sub-141 is 14 years old and the only one at 3 T; sub-018 and sub-050 have hardware or artefacts.
"""

if __name__ == "__main__":
    main()
