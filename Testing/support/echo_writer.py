"""Echo series as files, for those who read them."""

import gzip
import os
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from DiscRelaxometryLib.atomic import atomic_path, write_json
from DiscRelaxometryLib.echo import EchoSeries, stem
from DiscRelaxometryLib.errors import EchoSeriesError
from DiscRelaxometryLib.image import require_written, save_checked


def write_echo_series(series: EchoSeries, path: str | os.PathLike) -> Path:
    """Write a series atomically: 4-D NIfTI with a BIDS sidecar (``.nii.gz``), or a Slicer sequence (``.seq.nrrd``).

    Raises
    ------
    EchoSeriesError
        If the suffix is another one.
    OutputError
        If a file cannot be written in full.
    """
    path = Path(path)
    if path.name.lower().endswith((".nii", ".nii.gz")):
        image = sitk.JoinSeries([series.echo(n).to_sitk() for n in range(len(series))])
        key = "SpinLockTime" if series.kind == "T1rho" else "EchoTime"
        with atomic_path(path) as temporary:
            save_checked(image, temporary, path)
            write_json(path.with_name(stem(path) + ".json"), {
                key: [float(np.round(t / 1e3, 12)) for t in series.times_ms], "Kind": series.kind,
                **{k: v for k, v in series.meta.items() if k not in ("notes", "format")}, "Notes": series.notes})
        return path
    if path.name.lower().endswith(".seq.nrrd"):
        with atomic_path(path) as temporary:
            content = _sequence_bytes(series)
            temporary.write_bytes(content)
            require_written(temporary.read_bytes() == content, path)
        return path
    raise EchoSeriesError(f"'{path.name}': an echo series is written as .nii.gz or .seq.nrrd.")


def _sequence_bytes(series: EchoSeries) -> bytes:
    """Return a NRRD file as Slicer's volume sequence storage reads it: echo axis last, index values in ms."""
    geometry = series.geometry
    columns = geometry.matrix3.T
    vectors = " ".join("(" + ",".join(repr(float(v)) for v in column) + ")" for column in columns)
    name = "SpinLockTime" if series.kind == "T1rho" else "EchoTime"
    header = [
        "NRRD0005", "type: float", "dimension: 4", "space: left-posterior-superior",
        "sizes: " + " ".join(map(str, (*geometry.size, len(series)))), f"space directions: {vectors} none",
        "kinds: domain domain domain list", f'labels: "" "" "" "{name}"', 'units: "" "" "" "ms"',
        "endian: little", "encoding: gzip",
        "space origin: (" + ",".join(repr(float(v)) for v in geometry.origin) + ")",
        "axis 3 index type:=numeric", "axis 3 index values:=" + " ".join(repr(float(t)) for t in series.times_ms)]
    data = series.echoes.astype("<f4").tobytes()
    return ("\n".join(header) + "\n\n").encode() + gzip.compress(data, compresslevel=4, mtime=0)
