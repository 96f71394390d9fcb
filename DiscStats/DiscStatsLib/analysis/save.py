"""An analysis on disk: NIfTI maps with sidecars, cluster and design tables, and the provenance as JSON."""

import os
from pathlib import Path

from DiscRelaxometryLib.atomic import write_json
from DiscRelaxometryLib.errors import DesignError
from DiscRelaxometryLib.image import write_image
from DiscRelaxometryLib.tables import Column, Table

from ..permutation import level_name
from .analyze import AnalysisResult


def save_analysis(result: AnalysisResult, folder: str | os.PathLike, extension: str = ".nii.gz") -> list[Path]:
    """Write an analysis and return the paths.

    ``stat-<map>_statmap.nii.gz`` (or ``.nrrd``, by `extension`) with a JSON each, ``clusters.tsv``,
    ``design[_level].tsv``, ``analysis.json``. Every file is written under a temporary name first; ``analysis.json``
    comes last, so that its presence means all is there.
    """
    if extension not in (".nii.gz", ".nii", ".nrrd"):
        raise DesignError(f"Maps cannot be written as '{extension}': choose .nii.gz, .nii or .nrrd.")
    folder = Path(folder)
    written = []
    for name, image in result.maps.items():
        path = folder / f"stat-{name.replace('_', '-')}_statmap{extension}"
        written.append(write_image(image, path))
        written.append(write_json(folder / f"{path.name.removesuffix(extension)}.json", image.meta))
    written.append(result.clusters.write(folder / "clusters.tsv"))
    for path, table in _design_tables(result):
        written.append(table.write(folder / path))
    written.append(write_json(folder / "analysis.json", result.provenance))
    return written


def _design_tables(result: AnalysisResult):
    """Yield the design matrix of each level, or one where all share it."""
    shared = len({id(d) for d in result.designs.values()}) == 1
    for level, design in result.designs.items():
        columns = [Column("participant_id", "", "Person")] + [Column(c, "", "Design column") for c in design.columns]
        rows = [{"participant_id": result.data.ids[row], **dict(zip(design.columns, map(float, values)))}
                for row, values in zip(design.rows, design.matrix)]
        name = "design" if shared else f"design_{level_name(level).replace('-', '')}"
        yield f"{name}.tsv", Table(name, columns, rows)
        if shared:
            return
