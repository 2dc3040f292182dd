"""Finished dataset versions between this machine and object stores: ``push`` and ``pull``."""
