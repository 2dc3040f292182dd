"""How a version is loaded: code for its card, with vocprep and with the libraries of its shards.

A test runs each block as it is. What they import has to stay, since cards are part of versions.
"""

from __future__ import annotations

import re
from glob import escape

from vocprep.shards.index import DatasetIndex

FOLDER = "path/to/this/folder"
_VOCPREP = """\
from vocprep.shards.reader import LoaderOptions, ShardDataset

dataset = ShardDataset.open("{folder}")
for batch in dataset.loader("{split}", LoaderOptions(batch_size=64, shuffle=True)):
    batch.embeddings, batch.slot_labels, batch.slot_planes, batch.padding
"""
_H5PY = """\
import io

import h5py
import numpy as np
from PIL import Image

row = 0
with h5py.File("{folder}/{shard}") as shard:
    record_id = shard["image_id"][row].decode()
    patches = slice(*shard["offsets"][row : row + 2])
    embeddings = shard["embeddings"][patches]  # {dtype} [P, D]
    slot_labels = shard["slot_labels"][patches]  # [P, 4]
    png = shard["label_map"][slice(*shard["label_map_offsets"][row : row + 2])]
    label_map = np.asarray(Image.open(io.BytesIO(png)))  # uint16 [H, W]
"""
_WEBDATASET = """\
import io
from glob import glob

import numpy as np
import webdataset
from PIL import Image

tars = sorted(glob("{folder}/{pattern}"))
for sample in webdataset.WebDataset(tars, shardshuffle=False).decode():
    record_id = sample["json"]["image_id"]
    sample["embeddings.npy"], sample["slot_labels.npy"], sample["slot_planes.npy"]
    label_map = np.asarray(Image.open(io.BytesIO(sample["label_map.png16"])))  # uint16 [H, W]
"""
_DATASETS = """\
import io

import numpy as np
from datasets import load_dataset
from PIL import Image

tars = "{folder}/{pattern}"
dataset = load_dataset("webdataset", data_files={{"{name}": tars}})
row = dataset["{name}"][0]
embeddings = np.array(row["embeddings.npy"], dtype=np.{dtype})  # [P, D]
slot_labels = np.array(row["slot_labels.npy"], dtype=np.int16)  # [P, 4]
label_map = np.asarray(Image.open(io.BytesIO(row["label_map.png16"])))  # uint16 [H, W]
"""


def how_to_load(index: DatasetIndex) -> str:
    """Return the part of the card as Markdown: text and blocks of code."""
    split = next(iter(index.recipe.splits))
    parts = [_block(_VOCPREP, split=split)]
    if index.shards:
        parts += _without_vocprep(index)
    return "\n".join(parts)


def _without_vocprep(index: DatasetIndex) -> list[str]:
    """Return how the first split that has a shard is read by other libraries."""
    shard = index.shards[0]
    numbered = shard.name.removeprefix(shard.split)
    filled = {
        "shard": shard.name,
        "pattern": escape(shard.split) + re.sub("[0-9]", "?", numbered),
        "name": re.sub(r"\W", "_", shard.split),  # datasets allows no other letters
        "dtype": index.recipe.embedding_dtype,
    }
    if index.container == "hdf5":
        return ["Without vocprep, by `h5py`:\n", _block(_H5PY, **filled)]
    return [
        "Without vocprep, by the stock `webdataset` library:\n",
        _block(_WEBDATASET, **filled),
        "By `datasets`, with all splits that `data_files` names:\n",
        _block(_DATASETS, **filled),
    ]


def _block(code: str, **filled: str) -> str:
    return f"```python\n{code.format(folder=FOLDER, **filled)}```\n"
