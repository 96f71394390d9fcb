"""Echo series and DICOM objects that cannot be written in full leave nothing behind."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from support.echo_writer import write_echo_series

from DiscRelaxometryLib.dicom_export import export_study
from DiscRelaxometryLib.echo import EchoSeries
from DiscRelaxometryLib.errors import OutputError
from DiscRelaxometryLib.image import Geometry, Image

GRID = Geometry((4, 3, 2))


def halved(write):
    """Return a writer that loses the second half of its file without a word, as on a full disk."""
    def lose(*arguments, **options):
        write(*arguments, **options)
        path = next(Path(a) for a in arguments if str(a).endswith((".gz", ".nrrd", ".dcm")))
        path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])
    return lose


@pytest.mark.parametrize("name", ["a.nii.gz", "a.seq.nrrd"])
def test_half_written_echo_series(tmp_path, monkeypatch, name):
    series = EchoSeries(np.arange(48.0).reshape(2, 2, 3, 4), [10, 20], "T2", GRID)
    write_echo_series(series, tmp_path / "whole" / name)
    monkeypatch.setattr(sitk, "WriteImage", halved(sitk.WriteImage))
    whole = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", lambda path, data: whole(path, data[:-9]))
    with pytest.raises(OutputError, match="in full"):
        write_echo_series(series, tmp_path / "half" / name)
    assert not list(tmp_path.glob("half/**/*"))


def test_half_written_dicom(tmp_path, monkeypatch):
    pytest.importorskip("highdicom")
    from pydicom import dataset

    image = Image(np.ones(GRID.shape, np.float32), GRID)
    export_study(tmp_path / "whole", {"T2": image})
    write = dataset.Dataset.save_as

    def lose(self, path, **options):
        write(self, path, **options)
        path.write_bytes(path.read_bytes()[:-40])

    monkeypatch.setattr(dataset.Dataset, "save_as", lose)
    with pytest.raises(OutputError, match="in full"):
        export_study(tmp_path / "half", {"T2": image})
    assert not list(tmp_path.glob("half/**/*"))
