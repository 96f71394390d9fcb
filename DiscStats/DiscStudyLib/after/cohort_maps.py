"""Maps in atlas space on disk, found by person and quantity."""

import os
import re
from pathlib import Path

from DiscRelaxometryLib.errors import DesignError

#: As the study runner names them: sub-01_space-DiscAtlas_T2.nii.gz, perhaps with a session.
_NAME = re.compile(r"^(sub-[A-Za-z0-9]+)(?:_ses-[A-Za-z0-9]+)?_space-DiscAtlas_([A-Za-z0-9]+)\.nii(?:\.gz)?$")


def find_maps(folder: str | os.PathLike) -> dict[str, dict[str, Path]]:
    """Return quantity -> {participant_id: file} of the maps in atlas space under a folder.

    Raises
    ------
    DesignError
        If there is none, or a person has two files of one quantity.
    """
    folder = Path(folder)
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.rglob("*_space-DiscAtlas_*.nii*")) if folder.is_dir() else ():
        match = _NAME.match(path.name)
        if match is None:
            continue
        person, quantity = match.groups()
        if person in found.setdefault(quantity, {}):
            raise DesignError(f"{person} has two {quantity} maps, '{found[quantity][person].name}' and '{path.name}': "
                              "choose the folder of one session.", anchor="maps-in-atlas-space")
        found[quantity][person] = path
    if not found:
        raise DesignError(f"There is no map in atlas space (sub-XX_space-DiscAtlas_T2.nii.gz) in '{folder}': run the "
                          "study first, or bring maps into atlas space with DiscAtlas.", anchor="maps-in-atlas-space")
    return found


def atlas_of(folder: str | os.PathLike) -> Path | None:
    """Return the atlas folder that the study under `folder` built for itself, or None for the shipped one."""
    built = sorted(Path(folder).rglob("template/atlas_dseg.nii.gz"))
    return built[0].parent if built else None
