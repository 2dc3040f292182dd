"""What a viewer shows: versions and runs as columns, and what is computed in the background."""
