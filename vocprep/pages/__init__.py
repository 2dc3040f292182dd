"""Pages: pictures for people."""
