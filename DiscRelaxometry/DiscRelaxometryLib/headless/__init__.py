"""Slicer's MRML libraries without the application."""

from .runtime import start_headless

__all__ = ["start_headless"]
