"""Made NIfTI echo series: one decay with a little noise, the times in a sidecar."""

import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk

#: In seconds, as BIDS has them.
TIMES = (0.01, 0.02, 0.04, 0.08)
SPACING = (4.0, 1.0, 1.0)


def echo_images(t2: float = 0.06) -> list[sitk.Image]:
    """Return one volume per echo, with a band of background."""
    rng = np.random.default_rng(0)
    images = []
    for time in TIMES:
        array = 1000 * np.exp(-time / t2) + rng.normal(0, 5, (12, 12, 4))
        array[:, :3] = rng.uniform(0, 5, array[:, :3].shape)
        image = sitk.GetImageFromArray(array.astype(np.float32))
        image.SetSpacing(SPACING)
        images.append(image)
    return images


def write_series(path: Path) -> Path:
    """Write a 4-D series and its sidecar; return the image's path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.JoinSeries(echo_images()), str(path))
    write_sidecar(path, TIMES)
    return path


def write_echo_files(folder: Path, stem: str) -> Path:
    """Write one file per echo (stem_e1 and so on), each with its sidecar; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (image, time) in enumerate(zip(echo_images(), TIMES), start=1):
        path = folder / f"{stem}_e{number}.nii.gz"
        sitk.WriteImage(image, str(path))
        write_sidecar(path, time)
    return folder


def write_sidecar(path: Path, times) -> None:
    """Write the echo times beside an image."""
    path.with_name(path.name.split(".")[0] + ".json").write_text(json.dumps({"EchoTime": times}), encoding="utf-8")


def patch_header(path: Path, offset: int, values, kind: str) -> None:
    """Overwrite numbers of an uncompressed NIfTI header."""
    raw = bytearray(path.read_bytes())
    new = np.array(values, kind).tobytes()
    raw[offset:offset + len(new)] = new
    path.write_bytes(raw)
