"""Descriptions of a version for people and catalogues: its card and its Croissant file."""
