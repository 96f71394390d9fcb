"""What identifies a person, put everywhere a study can carry it."""

import json
from pathlib import Path

import SimpleITK as sitk

from DiscRelaxometryLib.image import read_image

SECRETS = ("Mustermann", "Erika", "19590412", "ID4711", "Klinikum Geheim")


def add_identity(study: Path) -> None:
    """Put a name, birth date and raw DICOM tags into the files of sub-01 and the table."""
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
