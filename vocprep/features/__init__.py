"""Features: image decoding, frozen backbones, embeddings of patches.

Belongs here: everything that decides the bits of an embedding.
"""
