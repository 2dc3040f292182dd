"""Where the data dir is, unless it is named."""

from __future__ import annotations

import os
from pathlib import Path

from vocprep.storage.places import Place, local_path, parse_place

DATA_DIR_VARIABLE = "VOCPREP_DATA_DIR"


def default_data_dir() -> Path:
    """Return ``$VOCPREP_DATA_DIR``, else ``./data``."""
    return local_path(os.environ.get(DATA_DIR_VARIABLE) or "data", f"${DATA_DIR_VARIABLE}")


def default_data_place() -> Place:
    """Return ``$VOCPREP_DATA_DIR``, which may be a URL here, else ``./data``."""
    return parse_place(os.environ.get(DATA_DIR_VARIABLE) or "data")
