"""Heads: what is trained on the shards, how it is scored and used."""
