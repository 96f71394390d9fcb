"""Regions of a disc in its own axes; see ``Docs/method/measures.md`` for their definitions and sources."""

from __future__ import annotations

from .frames import DiscFrame, disc_frame, disc_frames, spine_axes

__all__ = ["DiscFrame", "disc_frame", "disc_frames", "spine_axes"]
