"""A user's own data: what a folder holds, and the manifests that builds need of it.

Belongs here: recognising layouts of pictures and masks, looking at them, and writing
``dataset.toml``, a label space and split files. Nothing that a user made is ever changed.
"""
