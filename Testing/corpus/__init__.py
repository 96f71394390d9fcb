"""Tests of files, tables and calls as others make them; each known fault is marked."""
