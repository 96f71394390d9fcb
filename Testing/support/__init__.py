"""Helpers shared by the tests: where the shared data lie."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def shared_data(name: str = "") -> Path:
    """Return a path in the shared data, or skip the test, visibly, where it is absent."""
    root = Path(os.environ.get("DISC_SHARED_DATA", ROOT.parent / "shared" / "data"))
    # A worktree may lie one level deeper than the checkout.
    if not root.exists() and "DISC_SHARED_DATA" not in os.environ:
        root = ROOT.parent.parent / "shared" / "data"
    if not (root / name).exists():
        pytest.skip(f"shared data '{name}' not found: set DISC_SHARED_DATA to its folder")
    return root / name
