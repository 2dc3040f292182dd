"""Checking: data dirs, dataset versions, differences between versions, lock files.

Belongs here: what compares existing files or records with what they should be. Each check ends in a
report; only unusable input is an error.
"""
