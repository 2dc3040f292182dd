"""Scoring: a pass over a split, metrics, oracles, whole images, comparison of runs."""
