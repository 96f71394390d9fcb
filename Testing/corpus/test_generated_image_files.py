"""Generated NIfTI headers, names, sidecars and labels: right numbers, a note, or an error of the project's own kind.

NiBabel, which shares no code with ITK, says what a file holds and where it lies.
"""

import gzip
import json
import struct
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import strategies as st

from corpus.common import generated
from DiscRelaxometryLib.discs import import_labels
from DiscRelaxometryLib.echo import component, group_series, read_echo_series, stated_times
from DiscRelaxometryLib.echo.times import to_milliseconds
from DiscRelaxometryLib.errors import DiscRelaxometryError
from DiscRelaxometryLib.image import Geometry, Image, read_image, write_image
from DiscRelaxometryLib.labels import BY_NAME
from DiscRelaxometryLib.resources import resource_path

#: NIfTI's codes of data types.
TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 32: "c8", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8",
         1280: "u8"}
numbers = st.sampled_from([0.0, 1.0, -1.0, 0.8, 4.0, 1e-9, 1e9, np.nan, np.inf]) | st.floats(-10, 10, width=32)
USUAL = {"dim": [3, 4, 3, 2], "type": 16, "slope": (1, 0), "peak": 60, "codes": (1, 1), "pixdim": [4, 1, 1], "qfac": 1,
         "units": 2, "quaternion": [0, 0, 0, -9, 5, 7], "rows": [4, 0, 0, -9, 0, 1, 0, 5, 0, 0, 1, 7], "order": "<",
         "zipped": False, "magic": b"n+1\0", "name": "a.nii", "cut": 0}
#: What may be unusual about a header; some of it at a time.
ODD = {"dim": st.sampled_from([[4, 4, 3, 2, 1], [4, 4, 3, 2, 3], [5, 4, 3, 2, 1, 3], [2, 4, 3], [3, 4, 3, 1],
                               [4, 4, 3, 2, 0], [0], [8, 4, 3, 2], [3, -4, 3, 2]]),
       "type": st.sampled_from([*TYPES, 1, 128, 1536]), "peak": st.sampled_from([300, 40000]),
       "slope": st.sampled_from([(0, 0), (0, 5), (2, -1), (0.5, 3), (np.nan, np.nan)]) | st.tuples(numbers, numbers),
       "codes": st.tuples(st.integers(-1, 5), st.integers(-1, 5)) | st.sampled_from([(0, 1), (1, 0)]),
       "pixdim": st.lists(numbers, min_size=3, max_size=3), "qfac": st.sampled_from([-1, 0]),
       "units": st.sampled_from([0, 1, 3, 10, 255]),
       "quaternion": st.lists(st.floats(-1, 1, width=32), min_size=6, max_size=6)
       | st.lists(numbers, min_size=6, max_size=6) | st.sampled_from([[0.9, 0.9, 0, 1, 2, 3], [4, 0, 10, 1, 2, 3]]),
       "rows": st.sampled_from([[4, 1, 0, -9, 0, 1, 0, 5, 0, 0, 1, 7], [-4, 0, 0, -9, 0, 1, 0, 5, 0, 0, 1, 7]])
       | st.lists(numbers, min_size=12, max_size=12), "order": st.just(">"), "zipped": st.just(True),
       "magic": st.sampled_from([b"ni1\0", bytes(4)]), "cut": st.sampled_from([1, 30, 100, 400]),
       "name": st.sampled_from(["a.nii.gz", "a.b.NII.GZ", "a.nrrd", "a.mha", "a.img", "a.hdr", "image"])}
#: Any fields, or one transform alone and what it depends on.
FIELDS = st.lists(st.sampled_from(list(ODD)), max_size=5, unique=True) | st.just(["codes", "quaternion"]) \
    | st.just(["codes", "rows", "pixdim"])
HEADERS = FIELDS.flatmap(
    lambda odd: st.fixed_dictionaries({k: ODD[k] if k in odd else st.just(v) for k, v in USUAL.items()}))


def nifti(header: dict) -> bytes:
    """Return a NIfTI file with these values in its header, before it is zipped or cut."""
    raw, order = bytearray(352), header["order"]
    dim = [*header["dim"], *[1] * (8 - len(header["dim"]))]
    values = np.arange(np.prod(np.abs(dim[1:])), dtype=float)
    bits = {1: 1, 128: 24, 1536: 128}.get(header["type"]) or 8 * np.dtype(TYPES[header["type"]]).itemsize
    for offset, form, fields in ((0, "i", [348]), (40, "8h", dim), (70, "2h", [header["type"], bits]),
                                 (76, "4f", [header["qfac"], *header["pixdim"]]), (108, "f", [352]),
                                 (112, "2f", header["slope"]), (123, "B", [header["units"]]),
                                 (252, "2h", header["codes"]), (256, "6f", header["quaternion"]),
                                 (280, "12f", header["rows"])):
        struct.pack_into(order + form, raw, offset, *fields)
    raw[344:348] = header["magic"]
    data = np.round(values * header["peak"] / max(values.max(initial=0), 1))
    if header["type"] not in TYPES:
        return bytes(raw) + bytes(len(values) * bits // 8 + 1)
    kind = np.dtype(order + TYPES[header["type"]])
    if kind.kind in "iu":
        data = np.minimum(data, np.iinfo(kind).max)
    return bytes(raw) + data.astype(kind).tobytes()


def placements(header: dict) -> dict[str, np.ndarray]:
    """Return the usable transforms (3, 4) from index to LPS mm that a header states, by NiBabel."""
    import nibabel

    content = nifti({**header, "qfac": header["qfac"] or 1})
    other = nibabel.Nifti1Header(content[:348], endianness=header["order"], check=False)
    factor, found = {1: 1e3, 3: 1e-3}.get(header["units"] & 7, 1), {}
    for name, read in (("sform", other.get_sform), ("qform", other.get_qform)):
        try:
            with np.errstate(all="ignore"):
                form = read(coded=True)[0]
        except (ValueError, nibabel.spatialimages.HeaderDataError):
            continue
        # A code above 0 says that a transform counts.
        if form is not None and header["codes"][name == "sform"] > 0 and np.all(np.isfinite(form)):
            found[name] = np.diag([-factor, -factor, factor]) @ form[:3]
    return found


def usable(form: np.ndarray) -> bool:
    """Tell whether a transform places a rectangular grid."""
    lengths = np.linalg.norm(form[:, :3], axis=0)
    if lengths.min() < 1e-6:
        return False
    products = (form[:, :3] / lengths).T @ (form[:, :3] / lengths)
    return np.abs(products - np.eye(3)).max() < 0.008


def gap(geometry: Geometry, form: np.ndarray) -> float:
    """Return how far apart (mm) a grid's corners lie from where `form` puts them."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in geometry.size])).reshape(3, -1).T
    return np.abs(geometry.index_to_world(corners) - (corners @ form[:, :3].T + form[:, 3])).max()


def expected_values(header: dict) -> np.ndarray:
    """Return what NiBabel reads, in the order (k, j, i) or (t, k, j, i)."""
    import nibabel

    plain = {"quaternion": [0] * 6, "magic": b"n+1\0", "codes": (0, 0), "pixdim": [1, 1, 1], "qfac": 1, "units": 2}
    image = nibabel.Nifti1Image.from_bytes(nifti({**header, **plain}))
    return np.asarray(image.dataobj, float).T


@generated(HEADERS, 100, 700)
def test_nifti_headers(header):
    pytest.importorskip("nibabel")
    content = gzip.compress(nifti(header), 1) if header["zipped"] else nifti(header)
    several = header["dim"][0] in (4, 5) and max(header["dim"][4:]) == 3
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("error")
        path = Path(folder) / header["name"]
        path.write_bytes(content[:len(content) - header["cut"]])
        try:
            if several:
                series = read_echo_series([path], "T2", [10, 20, 40])
                values, geometry, notes = series.echoes, series.geometry, series.notes
            else:
                image = read_image(path)
                values, geometry, notes = image.array, image.geometry, image.meta.get("notes", [])
        except DiscRelaxometryError as error:
            assert header["name"] in error.message and str(error).count("[Help") <= 1, error.message
            return False
    assert header["type"] not in (1, 32, 128, 1536), "no scalar type"
    expected = np.squeeze(expected_values(header)).reshape(values.shape)
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    forms = placements(header)
    fitting = {name: gap(geometry, form) for name, form in forms.items() if usable(form)}
    lengths = np.abs(np.array(header["pixdim"], np.float32)) * {1: 1e3, 3: 1e-3}.get(header["units"] & 7, 1)
    if fitting:
        assert min(fitting.values()) < 0.11
    else:
        np.testing.assert_allclose(geometry.spacing, lengths, rtol=1e-4)
    if not (len(fitting) == len(forms) > 0 and max(fitting.values()) < 0.1
            and np.allclose(geometry.spacing, lengths, rtol=0.02)):
        assert notes, (fitting, geometry)
    return True


#: A series as people and converters name it: its name, how its echoes are told apart, and the first of these endings.
SERIES = st.tuples(
    st.sampled_from(["sub-01_MESE", "sub-01_acq-T2map_run-1_MESE", "sub-01_acq-T2map_run-2_MESE", "SAG_T2MAP",
                     "12_t2_mapping_sag_20240101", "knee e2 pd", "T1rho"]),
    st.sampled_from(["_e{}", "_e{}", "_E{}", "_echo-{}", "_echo-0{}", "_te{}0", "_tsl-{}0ms"]), st.integers(1, 12),
    st.booleans(), st.sets(st.sampled_from(["_ph", "_real", "_imaginary", "_part-phase", "_part-imag"]), max_size=2))
NAMES = st.tuples(st.lists(SERIES, min_size=1, max_size=3, unique_by=lambda s: s[0]), st.randoms(use_true_random=False),
                  st.sampled_from([".nii", ".nii.gz", ".nrrd", ".mha"]))


def stems(name: str, ending: str, count: int, first_bare: bool, components) -> tuple[list[str], list[str]]:
    """Return the stems of a series' echoes in order, and those of its phase, real and imaginary images."""
    def numbered(number: int, part: str = "") -> str:
        bare = first_bare and number == 1 and count > 1 and ending == "_e{}"
        echo = "" if bare else ending.format(number)
        if name.startswith("sub-"):  # BIDS: entities before the suffix
            start, _, suffix = name.rpartition("_")
            return f"{start}{echo}{part}_{suffix}"
        return f"{name}{echo}{part}"

    bids = name.startswith("sub-")
    parts = [c for c in components if c.startswith("_part") == bids]
    return [numbered(n) for n in range(1, count + 1)], [numbered(n, c) for n in range(1, count + 1) for c in parts]


@generated(NAMES, 50, 350)
def test_file_names(case):
    """Files fall into the series that they were named for, in the order of their echoes, however they are listed."""
    several, random, ending = case
    series = [stems(*one) for one in several]
    files = [Path(stem + ending) for echoes, _ in series for stem in echoes]
    groups = group_series(random.sample(files, len(files)))
    assert sorted(groups) == sorted([Path(stem + ending) for stem in echoes] for echoes, _ in series)
    assert not any(component(file) for file in files)
    assert all(component(Path(stem + ending)) for _, others in series for stem in others)
    return True


VALUES = st.sampled_from([0, 10, 0.01, 0.02, "0.04", "x", None, True, float("nan"), -1, 1e30, [], {}]) \
    | st.floats() | st.lists(st.floats(0, 0.1), max_size=4)
SIDECARS = st.tuples(
    st.lists(st.sampled_from([5, 10, 12.5, 20, 40, 80, 200]), min_size=2, max_size=4, unique=True).map(sorted),
    st.sampled_from(["EchoTime", "EchoTime_ms", "EchoTime_s", "SpinLockTime", "TSL_ms", "EffectiveEchoTime"]),
    st.sampled_from(["each", "each", "list", "list in each"]),
    st.none() | st.tuples(st.integers(0, 3), st.sampled_from(["EchoTime", "SpinLockTime", "TSL", "Manufacturer"]),
                          VALUES))


@generated(SIDECARS, 50, 350)
def test_times_in_sidecars(case):
    """The times are those that the sidecars state, in their unit; one odd entry changes nothing, or is an error."""
    times, key, form, odd = case
    unit = 1 if key.endswith("_ms") else 1e-3
    kind = "T1rho" if key[:3] in ("Spi", "TSL") else "T2"
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"a_e{n}.nii" for n in range(1, len(times) + 1)]
        for number, (file, time) in enumerate(zip(files, times)):
            content = {key: time * unit if form == "each" else [t * unit for t in times]}
            if odd and odd[0] == number:
                content[odd[1]] = odd[2]
            file.with_suffix(".json").write_text(json.dumps(content))
            if form == "list" and number == 0:
                Path(folder, "a.json").write_text(json.dumps(content))
            if form == "list":
                file.with_suffix(".json").unlink()
        try:
            found = stated_times(files, kind, len(files))
            read, _ = to_milliseconds(found[0], "sidecar", found[1])
        except DiscRelaxometryError:
            assert odd, "a plain sidecar is refused"
            return False
    if found[2] == key:
        changed = [odd[2] if odd and odd[0] == n and odd[1] == key else None for n in range(len(times))]
        if not any(c is not None for c in changed):
            assert read == pytest.approx(times)
    else:
        assert found[2] == odd[1] and form == "list"
    return True


FOLDER = resource_path("LabelMaps")
TABLES = {t["key"]: {row[0]: BY_NAME[row[2]].value if row[2] else 0 for row in t["structures"]}
          for t in map(json.loads, (f.read_text(encoding="utf-8") for f in sorted(FOLDER.glob("*.json"))))
          if t["levels"] == "tool"}
LABELS = st.sampled_from(sorted(TABLES)).flatmap(lambda key: st.tuples(
    st.just(key), st.lists(st.sampled_from(sorted(TABLES[key])), min_size=1, max_size=6, unique=True),
    st.sampled_from(["u1", "i2", "u2", "i4", "u4", "i8", "f4", "f8"]), st.sampled_from([0, 0, 0.009, 0.01, 0.3]),
    st.sampled_from([None, None, 250, 255, 256, 267, 300, 40000, -1]),
    st.sampled_from([".nii", ".nii.gz", ".nrrd", ".mha"])))


@generated(LABELS, 50, 350)
def test_labels(case):
    """Labels of any tool, type and format mean what its table says; other values are named."""
    key, values, kind, noise, extra, ending = case
    kept = [v for v in [*values, extra] if v is not None and (np.dtype(kind).kind == "f"
                                                              or np.iinfo(kind).min <= v <= np.iinfo(kind).max)]
    array = np.zeros((3, 4, 2 * len(kept) + 1))
    for place, value in enumerate(kept):
        array[1:, 1:, 2 * place + 1] = value + (noise if np.dtype(kind).kind == "f" else 0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{ending}"
        sitk.WriteImage(sitk.GetImageFromArray(array.astype(kind)), str(path))
        image = read_image(path)
    known = TABLES[key]
    try:
        labels, report = import_labels(image, key)
    except DiscRelaxometryError as error:
        assert ((extra in kept and extra not in known and str(extra) in error.message)
                or noise > 0.01 or not any(known.get(v) for v in kept)), error.message
        return False
    whole = np.rint(array).astype(int)
    np.testing.assert_array_equal(labels.array, np.vectorize(lambda v: known.get(v, 0))(whole))
    assert {**report.imported, **report.left_out}.keys() == set(kept)
    return True


IMAGES = st.tuples(st.sampled_from(["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", "?"]),
                   st.sampled_from([".nii", ".nii.gz", ".nrrd", ".mha"]), st.integers(0, 2**32 - 1),
                   st.booleans(), st.sampled_from([1, 1e-3, 1e6]))


@generated(IMAGES, 30, 200)
def test_images_come_back_as_written(case):
    kind, ending, seed, oblique, scale = case
    rng = np.random.default_rng(seed)
    array = rng.normal(0, scale, (3, 4, 5)) if np.dtype(kind).kind == "f" else rng.integers(0, 2, (3, 4, 5))
    if np.dtype(kind).kind in "iu":
        limits = np.iinfo(kind)
        array = rng.integers(limits.min, limits.max, (3, 4, 5), endpoint=True, dtype=kind)
    with np.errstate(over="ignore"):
        array = array.astype(kind)
    direction = np.linalg.qr(rng.normal(size=(3, 3)))[0] if oblique else np.eye(3)
    geometry = Geometry((5, 4, 3), rng.uniform(0.3, 5, 3), rng.normal(0, 200, 3), direction.ravel())
    with tempfile.TemporaryDirectory() as folder:
        again = read_image(write_image(Image(array, geometry), Path(folder) / f"a{ending}"))
    np.testing.assert_array_equal(again.array, array.astype({"f8": "f4", "?": "u1"}.get(kind, kind)))
    assert not geometry.difference(again.geometry, 0.02)
    return True
