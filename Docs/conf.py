"""Sphinx configuration: guides in Markdown, API reference from the docstrings."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
for module in ("DiscRelaxometry", "DiscAtlas", "DiscStats"):
    sys.path.insert(0, str(ROOT / module))

# The real runtime in place of mocked imports: following a mock's endless attributes, autodoc never ends.
from DiscRelaxometryLib.headless import start_headless  # noqa: E402

start_headless()

project = "DiscRelaxometry"
copyright = "DiscRelaxometry contributors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon",
              "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
autosummary_generate = True
# A wing's face is described by its modules: functions named like their module would be described twice.
autodoc_default_options = {"members": True, "undoc-members": False, "ignore-module-all": True}
napoleon_google_docstring = False
# Attributes are described by their class: as objects of their own, short names such as "n" would collide.
napoleon_use_ivar = True
# A word such as "shape" in a type is a word, not a reference to one of several attributes of that name.
# Tables made by benchmarks start at the third level of headings. Links between pages and to files beside Docs are
# checked by Testing/structure/test_docs.py.
suppress_warnings = ["ref.python", "myst.header", "myst.xref_missing"]
html_theme = "furo"
html_title = "DiscRelaxometry"
exclude_patterns = ["_build"]
