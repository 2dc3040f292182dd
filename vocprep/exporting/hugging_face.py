"""``--to hugging-face``: a dataset that ``datasets.load_dataset`` reads and the Hub shows.

Parquet files of the rows of ``--to parquet``, with what the library of Hugging Face knows beside:
label maps are images of 16 bits, class ids have names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
from datasets import ClassLabel, DatasetInfo, Features, Image, List
from datasets.info import DatasetInfosDict
from datasets.splits import SplitDict, SplitInfo
from huggingface_hub import DatasetCardData

from vocprep.errors import UsageError
from vocprep.exporting.hugging_face_card import CARD_FILE, card_text
from vocprep.exporting.parquet import Written, write_split
from vocprep.exporting.tables import COLUMNS
from vocprep.exporting.version_source import VersionSource
from vocprep.files.ids import file_stem
from vocprep.files.writing import canonical_json, write_json
from vocprep.labels.label_space import LabelSpace
from vocprep.shards.record import Record

DATA = "data"
"""The folder of the Parquet files."""
_MOST_NAMES = 2048
"""Classes whose names the features hold; of a label space with greater ids, ids stay numbers."""


def write_hugging_face(source: VersionSource, folder: Path) -> None:
    """Write ``data/SPLIT-IIIII-of-NNNNN.parquet``, ``labels.json`` and the card ``README.md``."""
    make_columns, space = COLUMNS[source.options.rows], source.label_space
    metadata = {"vocprep": canonical_json(source.about)}

    def make_table(records: list[Record]) -> pa.Table:
        columns = make_columns(records, space)
        if source.options.rows == "pictures":
            columns["label_map"] = _images(columns["label_map"], records)
        return _with_features(pa.table(columns), space, metadata)

    (folder / DATA).mkdir()
    written = {
        name: write_split(source.records(split), make_table, folder / DATA, name)
        for split, name in split_names(source.splits).items()
    }
    write_json(folder / "labels.json", space.to_json())
    text = _front_matter(source, written) + card_text(source, written)
    (folder / CARD_FILE).write_text(text, encoding="utf-8")


def split_names(splits: Sequence[str]) -> dict[str, str]:
    """Return each split with its name there, of letters, digits and underscores.

    UsageError where two splits would have one.

    >>> split_names(["train", "val 2"])
    {'train': 'train', 'val 2': 'val_2'}
    """
    names = {split: re.sub(r"\W", "_", split) for split in splits}
    if len({*names.values()}) < len(names):
        raise UsageError(
            f"splits {', '.join(splits)}: expected names that differ in letters, digits and "
            "underscores, the only ones that Hugging Face allows; choose by --splits"
        )
    return names


def _images(files: pa.Array, records: Sequence[Record]) -> pa.Array:
    """Return files of images as ``datasets`` stores them: each with a name."""
    names = pa.array([f"{file_stem(record.image_id)}.png" for record in records])
    return pa.StructArray.from_arrays([files, names], ["bytes", "path"])


def _with_features(table: pa.Table, space: LabelSpace, metadata: Mapping[str, bytes]) -> pa.Table:
    """Return a table whose schema holds the features that ``datasets`` reads, and metadata."""
    features = Features.from_arrow_schema(table.schema)
    if pa.types.is_struct(table.schema.field("label_map").type):
        features["label_map"] = Image(mode="I;16")
    names = [space.class_name(label) for label in range(min(space.outputs, _MOST_NAMES + 1))]
    if len({*names}) == space.outputs:
        named = ClassLabel(names=names)
        features |= {"labels": List(named)} if "labels" in features else {"label": named}
    schema = features.arrow_schema
    return table.cast(schema.with_metadata({**schema.metadata, **metadata}))


def _front_matter(source: VersionSource, written: Mapping[str, Written]) -> str:
    """Return what the card says to programs, as YAML between lines of dashes."""
    recipe = source.dataset.index.recipe
    features = Features.from_arrow_schema(next(iter(written.values())).schema)
    splits = SplitDict(
        {name: SplitInfo(name, each.table_bytes, each.rows) for name, each in written.items()}
    )
    info = DatasetInfo(
        features=features,
        splits=splits,
        dataset_size=sum(each.table_bytes for each in written.values()),
        download_size=sum(each.file_bytes for each in written.values()),
    )
    files = [{"split": name, "path": f"{DATA}/{name}-*"} for name in written]
    data = DatasetCardData(
        license="other",
        pretty_name=f"{recipe.dataset}: {source.dataset.index.short_id}",
        task_categories=["image-segmentation", "image-feature-extraction"],
        tags=["embeddings", "vocprep"],
        configs=[{"config_name": "default", "data_files": files}],
    )
    DatasetInfosDict({"default": info}).to_dataset_card_data(data)
    return f"---\n{data.to_yaml()}\n---\n\n"
