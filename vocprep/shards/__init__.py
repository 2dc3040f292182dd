"""The shard format and reading it: records, containers, index, identities, batches.

Belongs here: what docs/format.md defines, and PyTorch datasets over it. It imports
neither the data dir nor the backbone.
"""
