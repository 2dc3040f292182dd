"""vocprep: Pascal VOC and Pascal Context as frozen embeddings and per-patch targets, in shards."""
