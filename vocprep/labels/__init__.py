"""Labels: label files, label spaces, label maps, per-patch targets, statistics."""
