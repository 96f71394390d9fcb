"""Nothing that identifies a person reaches results, reports, logs or messages, whatever the inputs carry."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from support import dicom_samples as samples
from support.cohort_phantom import make_spine_study

from DiscRelaxometryLib.image import read_image
from DiscStudyLib import run_study

for library in ("jinja2", "matplotlib", "pandas", "patsy"):
    pytest.importorskip(library)

SECRETS = ("Mustermann", "Erika", "19590412", "ID4711", "Klinikum Geheim")


def add_identity(study: Path) -> None:
    """Put a name, birth date and raw DICOM tags everywhere a study can carry them."""
    anat = study / "sub-01" / "anat"
    secret = {"PatientName": "Mustermann^Erika", "PatientBirthDate": "19590412", "PatientID": "ID4711",
              "InstitutionName": "Klinikum Geheim", "ImageComments": "Mustermann, Erika"}
    (anat / "sub-01_T2w.json").write_text(json.dumps(secret), encoding="utf-8")
    sidecar = anat / "sub-01_T1rho.json"
    sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), **secret}), encoding="utf-8")
    # A NRRD file keeps DICOM tags as free key-value pairs.
    image = read_image(anat / "sub-01_T2w.nii.gz").to_sitk()
    for tag, value in (("0010|0010", "Mustermann^Erika"), ("0010|0030", "19590412"), ("0008|0080", "Klinikum Geheim")):
        image.SetMetaData(tag, value)
    (anat / "sub-01_T2w.nii.gz").unlink()
    sitk.WriteImage(image, str(anat / "sub-01_T2w.nrrd"))
    assert b"Mustermann" in (anat / "sub-01_T2w.nrrd").read_bytes()
    # A NIfTI header has a free text of 80 bytes.
    labels = read_image(anat / "sub-01_dseg.nii.gz").to_sitk()
    labels.SetMetaData("descrip", "Mustermann Erika 19590412")
    labels.SetMetaData("aux_file", "ID4711")
    sitk.WriteImage(labels, str(anat / "sub-01_dseg.nii.gz"))
    table = study / "participants.tsv"
    lines = table.read_text(encoding="utf-8").splitlines()
    table.write_text("\n".join([lines[0] + "\tname\tbirth", lines[1] + "\tErika Mustermann\t19590412",
                                *[line + "\tn/a\tn/a" for line in lines[2:]]]) + "\n", encoding="utf-8")


def unpacked(path: Path) -> bytes:
    """Return a file's bytes, unzipped where it is a gzip file."""
    import gzip

    data = path.read_bytes()
    return gzip.decompress(data) if path.name.endswith(".gz") else data


def test_identity_in_the_inputs_stays_there(tmp_path, capfd):
    study = make_spine_study(tmp_path / "study", (1, 3, 5, 2), ("T1rho",), simulated=False)
    add_identity(study)
    run = run_study(study, "pfirrmann", levels=("L4-L5",), permutations=100, align="off")
    assert [o.message for o in run.outcomes if o.state == "failed"] == []
    assert any("identifying fields" in f.problem for f in run.findings)
    files = [p for p in (study / "derivatives").rglob("*") if p.is_file()]
    assert any(p.name == "report.html" for p in files) and len(files) > 40
    texts = [(p.name, unpacked(p)) for p in files]
    texts += [("findings", "\n".join(map(str, run.findings)).encode()), ("log", "".join(capfd.readouterr()).encode()),
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
