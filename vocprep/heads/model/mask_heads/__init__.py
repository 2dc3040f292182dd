"""Mask heads: from tokens and embeddings to classes of pixels.

``kinds.MASK_HEADS`` is the one list of them; each is a module of its own.
"""
