"""Labels: schemas, label maps from .mat and PNG files, per-patch targets."""
