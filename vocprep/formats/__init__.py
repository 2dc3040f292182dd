"""JPEG and PNG files as bytes: kinds of files, and what they state before they are decoded.

Nothing here decodes pixels. ``labels`` and ``features`` share these checks, which bound the work of
the decoders that follow.
"""
