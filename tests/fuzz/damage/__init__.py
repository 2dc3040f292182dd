"""Damage to files, by their formats, and the digests that agree with it."""
