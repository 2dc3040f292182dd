"""The shard format and reading it: records, containers, index, identities, batches.

Belongs here: what docs/format.md defines (``codecs`` holds the containers' bytes), and PyTorch
datasets over it (``feed``). It imports neither the data dir nor the backbone.
"""
