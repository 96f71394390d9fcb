"""Algorithms of DiscAtlas: disc frames, shape registration, disc coordinates, templates and warping."""
