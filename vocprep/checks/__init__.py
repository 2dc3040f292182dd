"""Checking: data dirs, dataset versions, differences between versions, lock files.

Belongs here: what compares existing files or records with what they should be. Each check returns a
report; only input that cannot be checked at all is an error.

The public functions are ``verify.verify``, ``diff.diff``, ``inspect.inspect`` and ``lock.lock``.
"""
