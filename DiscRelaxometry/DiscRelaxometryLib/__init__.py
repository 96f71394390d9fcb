"""Algorithms of DiscRelaxometry: segmentation, echo series, relaxation maps and measures.

Everything here works on numpy arrays, SimpleITK images and plain dataclasses and imports without Slicer;
``mrml.py`` is the one file that touches MRML nodes.
"""

__version__ = "0.1.0"
