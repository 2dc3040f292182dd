"""Drawing: arrays and names in, pictures out: overlays, curves, bars, confusion matrices.

Belongs here: what every verb that writes a picture shares. Knows nothing of runs and versions.
"""
