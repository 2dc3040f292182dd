"""Runs on disk: options and presets, ``run.json``, the state, the log, the backbone's weights.

What reads or writes a file of a run folder belongs here; the loop that produces it does not.
"""
