"""Shards: records, the two containers, the dataset index, building and reading."""
