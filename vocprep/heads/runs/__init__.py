"""Run folders: options, presets, configuration, weights, checkpoints, metrics."""
