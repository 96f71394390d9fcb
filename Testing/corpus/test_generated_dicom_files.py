"""Generated DICOM series of every dialect, some of them damaged: the images that were made, or an error, or a note.

A series is made from facts (times, places, values of every voxel), written in one of the ways in which vendors write
them, and read back; what comes out is compared with the facts. What is not damaged has to be read.
"""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st

from corpus.common import generated
from corpus.raw_dicom import TAGS, dataset, file_bytes
from DiscRelaxometryLib.echo import read_echo_series
from DiscRelaxometryLib.errors import DiscRelaxometryError

ROWS, COLUMNS = 3, 4
CLASSIC, ENHANCED = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1"
PHILIPS = "Philips Medical Systems"

TIMES = st.sampled_from([[10, 20, 40], [6.9, 13.8, 20.7, 27.6], [10, 80], [1.5, 12, 30]])
#: What stands in the headers, by kind: where the times are, and how they are read.
SOURCES = {"T2": ["EchoTime", "text", "given", "sidecar"],
           "T1rho": ["text", "given", "time_tag", "InversionTime", "EchoTime", "sidecar"]}
#: Images beside the echoes: what they are, and how a vendor says so.
EXTRAS = {"phase": {"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]},
          "phase map": {"ImageType": ["DERIVED", "PRIMARY", "PHASE MAP"]},
          "real": {"ImageType": ["ORIGINAL", "PRIMARY", "R_SE", "R", "SE"]},
          "imaginary": {"ComplexImageComponent": "IMAGINARY"}, "GE phase": {"GE": 1}, "GE real": {"GE": 2},
          "Philips phase": {"Philips": "P"}, "T2 map": {"ImageType": ["DERIVED", "PRIMARY", "M", "T2 MAP"]},
          "R2 map": {"ImageType": ["DERIVED", "PRIMARY", "R2_MAP", "UNSPECIFIED"]},
          "sum": {"ImageType": ["DERIVED", "SECONDARY", "ADDITION"]},
          "derived": {"ImageType": ["DERIVED", "SECONDARY", "OTHER"]},
          "localizer": {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}}
DECOYS = ["private sequence", "reference", "TriggerTime", "RepetitionTime", "private times", "thickness"]
#: An element of one echo image that is spoiled, and how.
SPOILED = ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "EchoTime", "EchoNumbers",
           "InstanceNumber", "Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation", "RescaleSlope",
           "RescaleIntercept", "SeriesInstanceUID", "SOPClassUID", "Modality", "ImageType", "PhotometricInterpretation",
           "SamplesPerPixel", "NumberOfFrames", "PixelData", "SliceThickness", "ImageComments", "StudyInstanceUID",
           "SeriesNumber", "Manufacturer", "ScanningSequence", "SeriesDescription"]
HOW = ["remove", "empty", b"\xff\xfe\xfd\x00", b"abc ", b"1\\2 ", b"nan ", b"inf ", b"1e400 ", b"-1", b"UN", b"LO"]
DAMAGE = st.none() | st.tuples(st.sampled_from([*SPOILED, "file", "twice", "lost"]), st.sampled_from(HOW),
                                           st.integers(0, 99))
CASES = st.sampled_from(sorted(SOURCES)).flatmap(lambda kind: st.fixed_dictionaries({
    "kind": st.just(kind), "times": TIMES, "slices": st.integers(1, 3), "enhanced": st.booleans(),
    "source": st.sampled_from(SOURCES[kind]), "jitter": st.booleans(), "seed": st.integers(0, 2**32 - 1),
    "counter": st.sampled_from(["EchoNumbers", "TemporalPositionIdentifier", "AcquisitionNumber", "InstanceNumber"]),
    "scaling": st.sampled_from(["", "constant", "each", "Philips"]), "signed": st.booleans(),
    "extras": st.sets(st.sampled_from(sorted(EXTRAS)), max_size=2), "decoys": st.sets(st.sampled_from(DECOYS)),
    "syntax": st.sampled_from(["explicit", "explicit", "implicit", "big"]),
    "form": st.sampled_from(["part 10", "part 10", "meta", "bare"]), "class": st.booleans(), "damage": DAMAGE}))


class Series:
    """The facts of a case: where each image lies, and what each voxel holds."""

    def __init__(self, case: dict):
        self.case, rng = case, np.random.default_rng(case["seed"])
        self.rng, self.direction = rng, np.linalg.qr(rng.normal(size=(3, 3)))[0]
        self.direction[:, 2] = np.cross(self.direction[:, 0], self.direction[:, 1])
        self.origin, self.spacing = rng.normal(0, 100, 3).round(3), np.round(rng.uniform(0.4, 5, 3), 3)
        self.scale = {"": (1, 0, None), "constant": (2, -3, None), "each": (2, -3, None),
                      "Philips": (3, 0, 0.004)}[case["scaling"]]

    def position(self, place: int) -> list[float]:
        return list(map(float, self.origin + place * self.spacing[2] * self.direction[:, 2]))

    def stored(self, echo: int, place: int) -> np.ndarray:
        """Values of one image, different in each voxel of the series."""
        grid = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS)
        return (1000 + 2000 * (9 - echo) + 100 * place + grid).astype("u2")

    def scaling(self, echo: int, place: int) -> tuple[float, float, float | None]:
        slope, intercept, private = self.scale
        if self.case["scaling"] in ("each", "Philips"):
            slope = slope + echo + place / 4
        return slope, intercept, private

    def signal(self, echo: int, place: int) -> np.ndarray:
        slope, intercept, private = self.scaling(echo, place)
        value = self.stored(echo, place).astype(float) * slope + intercept
        return value / (slope * private) if private else value

    def time(self, echo: int, place: int) -> float:
        return self.case["times"][echo] + (0.004 * (place % 2) if self.case["jitter"] else 0)


def values_of(series: Series, echo: int, place: int, mark: dict | None) -> dict:
    """Return what the header says of one image, by keyword; `mark` makes it something else than an echo."""
    case, time = series.case, series.time(echo, place)
    count = echo * case["slices"] + place + 1
    slope, intercept, private = series.scaling(echo, place)
    header = {"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"],
              "EchoTime": time if case["source"] == "EchoTime" else 14.0,
              "ImagePositionPatient": series.position(place), "InstanceNumber": count, "Private": {}}
    if case["scaling"]:
        header |= {"RescaleSlope": float(slope), "RescaleIntercept": intercept}
    if private:
        header["Private"][0x2005100E] = ("FL", private)
    if case["source"] == "text":
        header["ImageComments"] = f"{'TSL' if case['kind'] == 'T1rho' else 'TE'} {time:.4f} ms"
    if case["source"] in ("given", "sidecar"):
        header[case["counter"]] = count if case["counter"] == "InstanceNumber" else echo + 1
    if case["source"] == "InversionTime":
        header["InversionTime"] = time
    if case["source"] == "time_tag" or "private times" in case["decoys"]:
        header["Private"][0x001910B6] = ("DS", time if case["source"] == "time_tag" else 700 - time)
    for keyword in {"TriggerTime", "RepetitionTime"} & case["decoys"]:
        header[keyword] = 1000.0 + 7 * echo
    for keyword, value in (mark or {}).items():
        if keyword == "GE":
            header["Private"] |= {0x00430010: ("LO", "GEMS_PARM_01"), 0x0043102F: ("SS", value)}
        elif keyword == "Philips":
            header["Private"][0x20051011] = ("CS", value)
        else:
            header[keyword] = value
    if mark:
        header["InstanceNumber"] += 500
    if any(tag >> 16 == 0x2005 for tag in header["Private"]):
        header["Private"][0x20050010] = ("LO", "Philips MR Imaging DD 001")
    return header


def decoy_item() -> dict:
    """Return what stands for something else in a vendor's sequence, or in a reference."""
    return dataset(ImagePositionPatient=[1.0, 2.0, 3.0], EchoTime=33.0, EffectiveEchoTime=33.0, RescaleSlope=9,
                   PixelSpacing=[9, 9], ComplexImageComponent="PHASE", ImageType=["DERIVED", "PRIMARY", "P"])


def common(series: Series) -> dict:
    """Return what all images say alike."""
    case, between = series.case, float(series.spacing[2])
    content = dataset(
        SOPClassUID=ENHANCED if case["enhanced"] else CLASSIC, SOPInstanceUID="1.2.3.4.5", Modality="MR",
        Manufacturer=PHILIPS if case["scaling"] == "Philips" else "ACME", StudyInstanceUID="1.2.3",
        SeriesDescription=f"sag {case['kind']} mapping", SeriesInstanceUID="1.2.3.4", SeriesNumber=5,
        ScanningSequence="SE", SamplesPerPixel=1, PhotometricInterpretation="MONOCHROME2", Rows=ROWS, Columns=COLUMNS,
        BitsAllocated=16, BitsStored=16, HighBit=15, PixelRepresentation=int(case["signed"]))
    if not case["class"]:
        del content[TAGS["SOPClassUID"][0]]
    if "reference" in case["decoys"]:
        content |= dataset(ReferencedImageSequence=[decoy_item()])
    return content, dataset(
        PixelSpacing=[float(series.spacing[1]), float(series.spacing[0])], SpacingBetweenSlices=between,
        SliceThickness=between * (0.7 if "thickness" in case["decoys"] else 1)), dataset(
        ImageOrientationPatient=list(map(float, series.direction.T[:2].ravel())))


def private_of(case: dict, header: dict) -> dict:
    content = header.pop("Private")
    if "private sequence" in case["decoys"]:
        content |= {0x21010010: ("LO", "SOMEBODY"), 0x2101100F: ("SQ", [decoy_item()])}
    return content


def write(series: Series, folder: Path) -> None:
    """Write the case's files, under names that say nothing."""
    case, rng = series.case, series.rng
    images = [(echo, place, EXTRAS[extra] if extra else None) for extra in ["", *sorted(case["extras"])]
              for echo in range(len(case["times"])) for place in range(case["slices"])]
    names = rng.permutation(len(images))
    top, measures, plane = common(series)
    echoes = [n for n, (_, _, mark) in enumerate(images) if not mark]
    damaged = echoes[case["damage"][2] % len(echoes)] if case["damage"] else None
    if case["source"] == "sidecar":
        key = "SpinLockTime" if case["kind"] == "T1rho" else "EchoTime"
        (folder / "times.json").write_text(f'{{"{key}": {[t / 1000 for t in case["times"]]}}}')
    if case["enhanced"]:
        frames = [frame(series, *images[n]) for n in names]
        if damaged is not None:
            spoil(frames[list(names).index(damaged)], case["damage"])
        pixels = b"".join(pixel_bytes(series, *images[n][:2]) for n in names)
        top |= dataset(NumberOfFrames=len(frames), ImageType=["ORIGINAL", "PRIMARY", "T2", "NONE"], InstanceNumber=1,
                       SharedFunctionalGroupsSequence=[dataset(PixelMeasuresSequence=[measures],
                                                               PlaneOrientationSequence=[plane])],
                       PerFrameFunctionalGroupsSequence=frames, PixelData=pixels)
        spoil_file(folder, "all", top, case, case["damage"])
        return
    for number, name in enumerate(names):
        echo, place, mark = images[number]
        header = values_of(series, echo, place, mark)
        private = private_of(case, header)
        content = top | measures | plane | dataset(**header, PixelData=pixel_bytes(series, echo, place)) | private
        if number == damaged:
            spoil(content, case["damage"])
        spoil_file(folder, f"{name:03d}", content, case, case["damage"] if number == damaged else None)


def frame(series: Series, echo: int, place: int, mark: dict | None) -> dict:
    """Return the functional groups of one image."""
    header = values_of(series, echo, place, mark)
    private = private_of(series.case, header)
    kind = {"FrameType": header.pop("ImageType")}
    if "ComplexImageComponent" in header:
        kind["ComplexImageComponent"] = header.pop("ComplexImageComponent")
    place_, time = header.pop("ImagePositionPatient"), header.pop("EchoTime")
    scaling = {k: header.pop(k) for k in ("RescaleSlope", "RescaleIntercept") if k in header}
    comment = {"FrameComments": header.pop("ImageComments")} if "ImageComments" in header else {}
    groups = dataset(PlanePositionSequence=[dataset(ImagePositionPatient=place_)],
                     MREchoSequence=[dataset(EffectiveEchoTime=time)],
                     MRImageFrameTypeSequence=[dataset(**kind)], FrameContentSequence=[dataset(**comment)])
    if scaling:
        groups |= dataset(PixelValueTransformationSequence=[dataset(**scaling)])
    return groups | private | {0x00209171: ("SQ", [dataset(**header)])}


def pixel_bytes(series: Series, echo: int, place: int) -> bytes:
    return series.stored(echo, place).astype(">u2" if series.case["syntax"] == "big" else "<u2").tobytes()


def spoil(content: dict, damage) -> None:
    """Spoil one element, wherever in the image's header it stands."""
    keyword, how, _ = damage
    tag = TAGS.get(keyword, (None,))[0]
    for items in (v for vr, v in content.values() if vr == "SQ"):
        for item in items:
            spoil(item, damage)
    if tag not in content:
        return
    vr, value = content[tag]
    if how == "remove":
        del content[tag]
    elif how in (b"UN", b"LO"):
        content[tag] = (how.decode(), value) if vr not in ("US", "FD") else (vr, value)
    else:
        content[tag] = (vr, b"" if how == "empty" else how)


def spoil_file(folder: Path, name: str, content: dict, case: dict, damage) -> None:
    written = file_bytes(content, case["syntax"], case["form"])
    if damage and damage[0] == "file":
        written = written[:len(written) * damage[2] // 100]
    if damage and damage[0] == "twice":
        (folder / (name + "copy")).write_bytes(written)
    if not (damage and damage[0] == "lost"):
        (folder / name).write_bytes(written)


def read(case: dict):
    """Write and read a case; return its facts and the series."""
    series, options = Series(case), {}
    if case["source"] == "time_tag":
        options["time_tag"] = "0019,10B6"
    with tempfile.TemporaryDirectory() as folder:
        write(series, Path(folder))
        return series, read_echo_series(folder, case["kind"], case["times"] if case["source"] == "given" else None,
                                        **options)


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of spoiled values
@generated(CASES, 80, 600)
def test_dicom_series(case):
    try:
        facts, series = read(case)
    except DiscRelaxometryError as error:
        assert case["damage"], error.message
        assert str(error).count("[Help") <= 1
        return False
    found = [int(np.argmin(np.abs(np.subtract(case["times"], t)))) for t in series.times_ms]
    # A single-slice series that lost a file is a shorter series; what is there, but no MR image, is named.
    told = case["damage"] and any("no MR images" in note for note in series.notes)
    if not (case["damage"] and (told or case["damage"][0] == "lost") and case["slices"] == 1):
        assert found == list(range(len(case["times"])))
    assert series.times_ms == pytest.approx([case["times"][n] for n in found], abs=0.005)
    for number, echo in enumerate(found):
        for place in range(case["slices"]):
            np.testing.assert_allclose(series.echoes[number, place], facts.signal(echo, place), rtol=1e-5)
    grid = series.geometry
    assert grid.origin == pytest.approx(tuple(facts.origin), abs=0.02)
    assert grid.spacing == pytest.approx(tuple(facts.spacing), rel=1e-3)
    assert np.reshape(grid.direction, (3, 3)) == pytest.approx(facts.direction, abs=1e-4)
    if case["extras"]:
        assert any("left out" in note for note in series.notes)
    return True
