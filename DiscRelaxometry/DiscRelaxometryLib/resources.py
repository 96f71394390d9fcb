"""Where shipped files (weights, tables, parameter files, sample data) lie, in Slicer, a checkout, or a wheel."""

import importlib
from pathlib import Path

from .errors import DiscRelaxometryError


def resource_path(name: str, lib: str = "DiscRelaxometryLib") -> Path:
    """Return the path of a file or folder in a module's ``Resources``.

    Parameters
    ----------
    name : str
        Path relative to ``Resources``, with forward slashes.
    lib : str
        Package whose module ships the file: ``DiscRelaxometryLib``, ``DiscAtlasLib`` or ``DiscStatsLib``.

    Raises
    ------
    DiscRelaxometryError
        If the installation does not hold the file.
    """
    package = Path(str(importlib.import_module(lib).__file__)).parent
    # A wheel carries Resources inside the package; Slicer and a checkout carry it beside the package.
    for root in (package / "Resources", package.parent / "Resources"):
        if (root / name).exists():
            return root / name
    raise DiscRelaxometryError(
        f"The installation is incomplete: '{name}' is missing from the Resources of {lib}. Reinstall the extension.",
        anchor="incomplete-installation",
    )
