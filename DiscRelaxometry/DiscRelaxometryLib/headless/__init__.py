"""Slicer's MRML libraries without the application."""

from .colors import add_color_tables
from .runtime import start_headless

__all__ = ["add_color_tables", "start_headless"]
