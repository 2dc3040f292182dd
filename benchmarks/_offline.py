"""The ``datasets`` library without its network: the variables are read when it is imported."""

import os

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")

import datasets

datasets.disable_progress_bars()

__all__ = ["datasets"]
