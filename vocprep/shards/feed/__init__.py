"""Feeding training jobs: the order of an epoch, datasets over a split, batches, the loader."""
