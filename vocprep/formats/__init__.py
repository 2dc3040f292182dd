"""Image and array files as bytes: kinds of files, and what they state before they are decoded.

JPEG, PNG and WebP are decoded by libraries, whose work these checks bound; TIFF and NPY are read
here. ``labels`` and ``features`` share all of it.
"""
