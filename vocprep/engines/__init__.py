"""Engines: where the work of a build is done."""
