"""Drawing: arrays and names in, pictures out: overlays, curves, bars, confusion matrices.

Belongs here: what all verbs that write pictures share. It imports no runs and no dataset versions.
"""
