"""Discs of an anatomical volume: segmented by a network, named, with confidence and flags."""
