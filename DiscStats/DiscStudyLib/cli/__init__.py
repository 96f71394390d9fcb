"""The command line ``disc-relaxometry``."""

from .main import main

__all__ = ["main"]
