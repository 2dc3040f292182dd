"""Features: pictures from files, the frozen backbone, embeddings of patches."""
