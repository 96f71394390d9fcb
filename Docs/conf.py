"""Sphinx configuration: guides in Markdown, API reference from the docstrings."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
for module in ("DiscRelaxometry", "DiscAtlas", "DiscStats"):
    sys.path.insert(0, str(ROOT / module))

project = "DiscRelaxometry"
copyright = "DiscRelaxometry contributors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon",
              "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
autosummary_generate = True
autodoc_default_options = {"members": True, "undoc-members": False}
autodoc_mock_imports = ["slicer", "vtk", "vtkmodules", "qt", "ctk"]
napoleon_google_docstring = False
html_theme = "furo"
html_title = "DiscRelaxometry"
exclude_patterns = ["_build"]
