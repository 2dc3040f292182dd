"""Training: epochs (``train``), a step (``steps``), batches (``feed``), ranks (``distributed``).

Files of the run are written through ``vocprep.heads.runs``.
"""
