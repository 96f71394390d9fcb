"""One analysis of maps against a table: from images and formula to result maps."""
