"""Training: epochs (``one_pass``), steps (``steps``), batches (``feed``), ranks (``distributed``).

Files of the run are written through ``vocprep.heads.runs``.
"""
