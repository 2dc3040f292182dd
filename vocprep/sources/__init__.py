"""Sources: manifests, the data dir as a tree of samples, and a generated sample tree."""
