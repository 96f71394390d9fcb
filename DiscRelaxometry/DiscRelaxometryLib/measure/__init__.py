"""Measures of each disc and its regions, and labels carried from one image to another."""
