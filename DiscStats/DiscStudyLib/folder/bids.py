"""What makes a results folder a BIDS derivative: description, units of every kind of map, names of the labels.

Sidecars lie at the top of the folder and hold for all files below (BIDS: inheritance principle), so that a study of
thousands has a dozen of them.
"""

import json
from collections.abc import Sequence

from DiscRelaxometryLib import __version__
from DiscRelaxometryLib.atomic import write_json, write_text
from DiscRelaxometryLib.echo import KINDS
from DiscRelaxometryLib.errors import StudyError
from DiscRelaxometryLib.labels import STRUCTURES
from DiscRelaxometryLib.quantities import QUANTITIES
from DiscRelaxometryLib.tables import Column, Table

from .settings import Settings, make_settings
from .simulated import label_results
from .study import REPORT, Study

BIDS_VERSION = "1.10.0"
_SETTINGS = "settings.json"
#: Names that BIDS has no suffix or entity for; T1rhomap, because T1rho is the suffix of the series in use.
_IGNORED = ("group", "review.*", "figures", "prov", _SETTINGS, REPORT, ".lock", "xfm", "*T1rhomap.*",
            "*fit.nii.gz", "*fit.json", "*_echo.nii.gz", "*_echo.json", "*_nT2w.*", "*_percent.*", "*_measures.*",
            "*_quality.*", "*space-DiscAtlas_*")
_README = """# Results of DiscRelaxometry

`report.html` shows them; `group/` has tables of everyone, group maps and analyses; `sub-XX/prov/` says how each step
was done. Units are in the JSON files beside tables and images. What BIDS has no name for is in `.bidsignore`.
"""
_LABELS = "Integer labels; names, codes and colors in desc-discs_dseg.tsv"


def describe_results(study: Study, settings: Settings) -> None:
    """Write description, settings, sidecars, label table and .bidsignore of a study's results folder."""
    folder = study.output
    # First, so that the folder is known as this program's whenever a run is killed.
    write_json(folder / "dataset_description.json", _description(study))
    write_json(folder / _SETTINGS, {k: v for k, v in settings.to_dict().items() if k != "threads"})
    write_text(folder / ".bidsignore", "\n".join(_IGNORED) + "\n")
    kinds = [kind for kind in KINDS if any(kind in p.kinds for p in study.people)]
    written = [write_json(folder / f"{name}.json", fields) for name, fields in _sidecars(kinds).items()]
    written.append(_label_table().write(folder / "desc-discs_dseg.tsv"))
    # Table.write makes a sidecar of the columns; the label images' own sidecar has the same name and comes after it.
    write_json(folder / "desc-discs_dseg.json", {
        "Description": _LABELS, "Manual": False, "SpatialReference": "orig",
        "snomed": {"Description": "Concept id of SNOMED CT"}})
    write_text(folder / "README.md", _README)
    if study.simulated:
        label_results([*written, folder / "desc-discs_dseg.json"])


def last_settings(study: Study) -> Settings:
    """Return the settings of the study's last run."""
    path = study.output / _SETTINGS
    if not path.exists():
        raise StudyError("The study was not run yet: use 'disc-relaxometry run' first.", anchor="study-run")
    return make_settings(**json.loads(path.read_text(encoding="utf-8")))


def _description(study: Study) -> dict:
    name = str(study.description.get("Name") or "Lumbar disc study")
    described: dict = {"Name": f"{name}: DiscRelaxometry results", "BIDSVersion": BIDS_VERSION,
                 "DatasetType": "derivative",
                 "GeneratedBy": [{"Name": "DiscRelaxometry", "Version": __version__}]}
    if study.output.is_relative_to(study.root):
        up = "/".join([".."] * len(study.output.relative_to(study.root).parts))
        described |= {"DatasetLinks": {"raw": up}, "SourceDatasets": [{"URL": "bids:raw:"}]}
    if study.description.get("License"):
        described["License"] = study.description["License"]
    if study.simulated:
        described["Simulated"] = True
    return described


def _sidecars(kinds: Sequence[str]) -> dict[str, dict]:
    """Return name without ``.json`` -> fields of each kind of image; a sidecar without any image is no BIDS."""
    def fields(key: str, words: str = "") -> dict:
        quantity = QUANTITIES[key]
        return {"Description": (words or quantity.description) + ".", "Units": quantity.unit}

    found = {"desc-csfnorm_nT2w": fields("nT2w"), "space-DiscAtlas_nT2w": fields("nT2w"),
             "desc-confidence_percent": {"Description": "Calibrated probability of the label.", "Units": "%"}}
    for kind in kinds:
        found[f"{kind}map"] = {**fields(kind), "SkullStripped": False,
                               "MissingValue": "NaN: no good fit; reasons in desc-status"}
        found[f"space-DiscAtlas_{kind}"] = fields(kind)
        found[f"acq-{kind}_desc-first_echo"] = {"Description": f"First echo of the {kind} series.", "Units": "[arb'U]"}
        for key in ("M0", "offset", "SE", "R2", "B1", "status"):
            found[f"acq-{kind}_desc-{key}_{kind}fit"] = fields(key)
    return found


def _label_table() -> Table:
    """Return the label table (BIDS ``dseg.tsv``)."""
    columns = [Column("index"), Column("name"), Column("abbreviation"), Column("color"), Column("snomed")]
    return Table("labels", columns, [
        {"index": s.value, "name": s.name, "abbreviation": s.key, "snomed": s.snomed[0],
         "color": "#{:02x}{:02x}{:02x}".format(*s.color)} for s in STRUCTURES])
