"""Pages: HTML for people. ``report`` is one self-contained file, ``viewer`` a local web server."""
