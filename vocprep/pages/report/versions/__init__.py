"""Pages about dataset versions: one, or two side by side."""
