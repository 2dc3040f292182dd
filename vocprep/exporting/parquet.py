"""``--to parquet``: tables for pandas, polars, DuckDB and Spark, in a folder per split.

The bytes follow from the records alone: neither the container nor the layout of the version that
is exported changes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from vocprep.exporting.tables import COLUMNS, SEARCHED
from vocprep.exporting.version_source import VersionSource
from vocprep.files.writing import canonical_json, write_json
from vocprep.shards.record import Record

GROUP_PATCHES = 1 << 14
"""Patches after which a row group ends: what is in memory at a time."""
FILE_PATCHES = 1 << 19
"""Patches after which a file ends: about 400 MB of 256 numbers as float16."""
_LEVEL = 3
"""Of zstd: higher ones make these tables smaller by less than their time is worth."""
_UNIQUE = frozenset({"embeddings", "embedding", "slot_planes", "label_map"})
"""Columns with hardly two equal values."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """The rows of a split in its files."""

    rows: int
    schema: pa.Schema
    table_bytes: int
    """As Arrow tables in memory."""
    file_bytes: int


MakeTable = Callable[[list[Record]], pa.Table]


def write_parquet(source: VersionSource, folder: Path) -> None:
    """Write the rows of each split to ``folder/SPLIT/SPLIT-IIIII-of-NNNNN.parquet``.

    ``labels.json`` is beside the splits; the schema's metadata holds it and the identities of the
    version too, as JSON under ``vocprep``.
    """
    columns, space = COLUMNS[source.options.rows], source.label_space
    metadata = {"vocprep": canonical_json(source.about)}

    def make_table(records: list[Record]) -> pa.Table:
        return pa.table(columns(records, space), metadata=metadata)

    for split in source.splits:
        (folder / split).mkdir()
        write_split(source.records(split), make_table, folder / split, split)
    write_json(folder / "labels.json", space.to_json())


def write_split(
    records: Iterable[Record], make_table: MakeTable, folder: Path, name: str
) -> Written:
    """Write records, at least one, to ``folder/NAME-IIIII-of-NNNNN.parquet``."""
    paths: list[Path] = []
    written: list[Written] = []
    for _, groups in groupby(_row_groups(records), key=itemgetter(0)):
        paths.append(folder / f"{len(paths):05d}")
        tables = (make_table(group) for _, group in groups)
        written.append(_write_file(tables, paths[-1]))
    for number, path in enumerate(paths):
        path.rename(folder / f"{name}-{number:05d}-of-{len(paths):05d}.parquet")
    return Written(
        rows=sum(each.rows for each in written),
        schema=written[0].schema,
        table_bytes=sum(each.table_bytes for each in written),
        file_bytes=sum(each.file_bytes for each in written),
    )


def _row_groups(records: Iterable[Record]) -> Iterator[tuple[int, list[Record]]]:
    """Yield the records of each row group with the number of the file that it goes into."""
    group: list[Record] = []
    before = patches = 0
    for record in records:
        group.append(record)
        patches += len(record.embeddings)
        if patches >= GROUP_PATCHES:
            yield before // FILE_PATCHES, group
            before, group, patches = before + patches, [], 0
    if group:
        yield before // FILE_PATCHES, group


def _write_file(tables: Iterator[pa.Table], path: Path) -> Written:
    """Write a file of a row group per table."""
    first = next(tables)
    rows = table_bytes = 0
    with path.open("wb") as stream, _writer(stream, first.schema) as writer:
        for table in chain([first], tables):
            writer.write_table(table, row_group_size=len(table))
            rows += len(table)
            table_bytes += table.nbytes
    return Written(
        rows=rows, schema=first.schema, table_bytes=table_bytes, file_bytes=path.stat().st_size
    )


def _writer(stream: BinaryIO, schema: pa.Schema) -> pq.ParquetWriter:
    repeating = [field for field in schema if field.name not in _UNIQUE]
    return pq.ParquetWriter(
        stream,
        schema,
        compression="zstd",
        compression_level=_LEVEL,
        use_dictionary=[_leaf(field.name, field.type) for field in repeating],
        write_statistics=[field.name for field in schema if field.name in SEARCHED],
    )


def _leaf(path: str, kind: pa.DataType) -> str:
    """Return the path by which Parquet knows the numbers or texts in a column of lists."""
    is_list = pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind)
    return _leaf(f"{path}.list.element", kind.value_type) if is_list else path
