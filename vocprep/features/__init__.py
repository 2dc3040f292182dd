"""Features: image decoding, frozen backbones, embeddings of patches.

Belongs here: everything that decides the bits of an embedding. The networks are in ``networks``,
cut at their layers in ``backbone``; ``weights`` reads and digests weights, ``devices`` chooses
devices and describes their numerics class.
"""
