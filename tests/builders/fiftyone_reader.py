"""Reads an import folder with FiftyOne itself, in a process of its own, and writes what arrived.

``python -P fiftyone_reader.py FOLDER OUT`` writes ``OUT/dataset.json`` and ``OUT/masks.npz``.
FiftyOne keeps data sets in MongoDB; where mongomock is installed, a database in memory takes its
place, so that no server is needed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np


def use_memory() -> None:
    """Have FiftyOne find a database in memory wherever it connects to one."""
    os.environ |= {
        "FIFTYONE_DATABASE_URI": "mongodb://127.0.0.1",
        "FIFTYONE_DATABASE_VALIDATION": "false",
        "FIFTYONE_DISABLE_SERVICES": "1",
    }
    import mongoengine
    import mongomock
    import pymongo

    class Client(mongomock.MongoClient):
        _closed = False

    client, connect = Client(), mongoengine.connect
    pymongo.MongoClient = lambda *_, **__: client

    def connect_here(name: str, **_: Any) -> Any:
        return connect(name, host="mongodb://localhost", mongo_client_class=lambda *_, **__: client)

    mongoengine.connect = connect_here


def read(folder: str, masks: Path) -> dict[str, Any]:
    """Return what FiftyOne has of a folder; label maps go to a file of numpy."""
    import fiftyone as fo

    dataset = fo.Dataset.from_dir(folder, fo.types.FiftyOneDataset, name="read")
    np.savez(masks, **{each.record_id: each.ground_truth.get_mask() for each in dataset})
    return {
        "samples": [
            {
                **{name: each[name] for name in ("record_id", "image_id", "view", "tags")},
                **{name: each[name] for name in ("filepath", "classes")},
                "size": [each.metadata.height, each.metadata.width],
                "embedding": each.embedding.tolist(),
            }
            for each in dataset
        ],
        "val": dataset.match_tags("val").count(),
        "classes": dataset.distinct("classes"),
        "mask_targets": dataset.default_mask_targets,
        "content_id": dataset.info["content_id"],
        "colours": dataset.app_config.color_scheme.default_mask_targets_colors,
    }


if __name__ == "__main__":
    if importlib.util.find_spec("mongomock") is not None:
        use_memory()
    folder, out = sys.argv[1:]
    found = read(folder, Path(out, "masks.npz"))
    Path(out, "dataset.json").write_text(json.dumps(found))
