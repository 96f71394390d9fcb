"""Designs of a statistical model: formula, columns, contrasts."""
