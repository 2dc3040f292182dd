"""Pictures for people: overlays, curves, charts, confusion matrices."""
