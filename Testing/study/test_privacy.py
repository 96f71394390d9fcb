"""Nothing that identifies a person reaches results, reports, logs or messages, whatever the inputs carry."""

from pathlib import Path

import numpy as np
from support import dicom_samples as samples
from support.identity import SECRETS

from DiscRelaxometryLib.image import read_image


def unpacked(path: Path) -> bytes:
    """Return a file's bytes, unzipped where it is a gzip file."""
    import gzip

    data = path.read_bytes()
    return gzip.decompress(data) if path.name.endswith(".gz") else data


def test_identity_in_the_inputs_stays_there(run, study, printed):
    assert any("identifying fields" in f.problem for f in run.findings)
    files = [p for p in (study / "derivatives" / "disc-relaxometry").rglob("*") if p.is_file()]
    assert any(p.name == "report.html" for p in files) and len(files) > 40
    texts = [(p.name, unpacked(p)) for p in files]
    texts += [("findings", "\n".join(map(str, run.findings)).encode()), ("log", printed.encode()),
              ("messages", "\n".join(o.message for o in run.outcomes).encode())]
    for name, data in texts:
        for secret in SECRETS:
            assert secret.encode() not in data, (name, secret)


def test_maps_from_dicom_hold_no_tag(tmp_path):
    def mark(dataset, t):
        dataset.EchoTime, dataset.PatientName, dataset.PatientBirthDate = t, "Mustermann^Erika", "19590412"
        dataset.PatientID, dataset.InstitutionName = "ID4711", "Klinikum Geheim"

    from DiscStudyLib.cli.app import maps

    samples.write_classic(tmp_path / "dicom", (10.0, 20.0, 40.0), mark)
    maps([tmp_path / "dicom"], tmp_path / "maps", "T2", align="off")
    written = list((tmp_path / "maps").iterdir())
    assert written and np.isfinite(read_image(tmp_path / "maps" / "T2.nii.gz").array).any()
    for path in written:
        assert not any(secret.encode() in unpacked(path) for secret in SECRETS), path.name
