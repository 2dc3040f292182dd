"""Opening a finished dataset version: its records, label space and loaders.

The card of every version ever written says ``from vocprep.shards.reader import LoaderOptions,
ShardDataset``: these two names stay here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch

from vocprep.errors import ManifestError, ShardError, UsageError
from vocprep.files.reading import parse_json
from vocprep.labels.label_space import LabelSpace
from vocprep.options import LoaderOptions
from vocprep.shards.batches import Batch, collate
from vocprep.shards.containers import ProvedShards, ShardReader
from vocprep.shards.datasets import ResidentDataset, StreamingDataset
from vocprep.shards.index import DatasetIndex, check_files
from vocprep.shards.loading import Loader
from vocprep.shards.order import epoch_order
from vocprep.shards.record import FLIP_SUFFIX, PATCH_FIELDS, Record
from vocprep.shards.samples import LABELS_FILE, QuarantinedSample, SampleEntry
from vocprep.shards.tar import TarShard
from vocprep.shards.version import Version, read_listed, read_sample
from vocprep.storage.places import Place, parse_place
from vocprep.validation import explain

if TYPE_CHECKING:
    from webdataset import FluidWrapper

__all__ = [
    "Batch",
    "Loader",
    "LoaderOptions",
    "ResidentDataset",
    "ShardDataset",
    "StreamingDataset",
    "collate",
    "epoch_order",
    "open",
]
_ARRAYS = ("embeddings", *PATCH_FIELDS)
_MAX_LABELS = 64 << 20
"""Bytes of labels.json: that of the largest label space that is shipped has 15 kB."""


class ShardDataset:
    """A finished dataset version, opened by its index."""

    def __init__(self, path: Place, version: Version) -> None:
        self.path = path
        self.version = version
        self.index: DatasetIndex = version.index
        self.samples: Sequence[SampleEntry] = version.samples
        self.quarantined: Sequence[QuarantinedSample] = version.quarantined
        """Images that no record could be made of, and why; the shards hold nothing of them."""
        # Shared with the worker processes of a DataLoader, so that none proves a shard again.
        fingerprints = torch.zeros(len(version.index.shards), dtype=torch.int64)
        fingerprints.share_memory_()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._shards = ProvedShards(path, version.index, fingerprints)
        self._last: tuple[str, ShardReader] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_last": None}  # not a whole shard into every worker process

    @classmethod
    def open(cls, path: Place | str) -> Self:
        """Open what ``vocprep build-shards`` wrote: a folder, or the URL of one in an object store.

        ShardError when it is no finished version, or when a shard is missing or has another size.
        """
        path = parse_place(path)
        version = Version.read(path)
        check_files(path, version.index)
        return cls(path, version)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        return tuple(sorted(self.index.recipe.splits))

    @cached_property
    def label_space(self) -> LabelSpace:
        """The label space, read from labels.json; ShardError when it is not the recipe's."""
        path, identity = self.path / LABELS_FILE, self.index.recipe.schema
        try:
            data = read_listed(self.path, self.index, LABELS_FILE, _MAX_LABELS)
            label_space = LabelSpace.from_json(parse_json(data))
        except (ValueError, ManifestError) as error:
            raise ShardError(
                f"{path}: cannot be read: {explain(error)}; copy it again, or build "
                "the shards again"
            ) from error
        if label_space.sha256 != identity.sha256:
            raise ShardError(
                f"{path}: has digest {label_space.sha256[:12]}…: expected {identity.sha256[:12]}… "
                f"of schema {identity.name}; copy it again, or build the shards again"
            )
        return label_space

    @property
    def content_id(self) -> str:
        """Digest of all records, whichever files hold them."""
        return self.index.content_id

    def shard_names(self, split: str) -> list[str]:
        """Return a split's shards in order; UsageError when there is no such split."""
        names = [shard.name for shard in self.index.shards if shard.split == split]
        if names:
            return names
        if split in self.splits:
            raise UsageError(
                f"{self.path}: split {split!r} holds no record: all of its images are in "
                "quarantine.jsonl; correct them and build again, or name another split"
            )
        raise UsageError(
            f"{self.path}: no split {split!r}: expected one of {', '.join(self.splits)}"
        )

    def read_shard(self, name: str, *, all_views: bool = False) -> Iterator[Record]:
        """Yield a shard's records in row order; ShardError when they are not those of the index."""
        for record in self._open_shard(name):
            if all_views or not record.image_id.endswith(FLIP_SUFFIX):
                yield record

    def prefetch(self, names: Sequence[str]) -> None:
        """Begin to fetch shards that are read next: of a folder there is nothing to fetch."""

    def _open_shard(self, name: str) -> ShardReader:
        """Return the shard; ShardError when its records are not those of samples.jsonl."""
        expected = [sample.id for sample in self.version.by_shard[name]]
        shard = self._shards.open(name)
        if shard.image_ids != expected:
            raise ShardError(
                f"{self.path / name}: its {len(shard.image_ids)} records are not the "
                f"{len(expected)} that the index lists; build the shards again"
            )
        return shard

    def record(self, image_id: str) -> Record:
        """Return one record, ``ID#flip`` for a mirrored view.

        Reads its shard, which is kept for the next call. UsageError when there is none of this id.
        """
        sample = self._by_id.get(image_id)
        if sample is None:
            raise UsageError(f"{self.path}: no record {image_id!r}: {self._why_missing(image_id)}")
        if self._last is None or self._last[0] != sample.shard:
            self._last = sample.shard, self._shards.open(sample.shard)
        record = read_sample(self._last[1], sample, str(self.path / sample.shard))
        # Copied, so that what a caller writes to is not what the next call returns.
        fields: dict[str, Any] = {name: getattr(record, name).copy() for name in _ARRAYS}
        return replace(record, **fields)

    def _why_missing(self, image_id: str) -> str:
        """Return why no record has this id."""
        plain = image_id.removesuffix(FLIP_SUFFIX)
        for bad in self.quarantined:
            if bad.id == plain:
                return f"{plain} is in quarantine.jsonl: {bad.reason}"
        if plain in self._by_id:
            return "this version holds no mirrored views"
        if close := get_close_matches(plain, self._by_id, n=1):
            return f"did you mean {close[0]!r}?"
        example = next(iter(self._by_id), None)
        return f"expected an id of samples.jsonl, such as {example!r}"

    @cached_property
    def _by_id(self) -> dict[str, SampleEntry]:
        return {sample.id: sample for sample in self.samples}

    def __len__(self) -> int:
        """Return the number of records of all splits, mirrored views included."""
        return len(self.samples)

    def __repr__(self) -> str:
        counts = Counter(sample.split for sample in self.samples)
        splits = ", ".join(f"{split} {counts[split]:,}" for split in self.splits)
        return f"ShardDataset('{self.path}': {self.index.short_id}, records: {splits})"

    def shard_sizes(self, split: str, *, all_views: bool = False) -> list[int]:
        """Return how many records ``read_shard`` yields of each of a split's shards."""
        by_shard = self.version.by_shard
        return [
            sum(all_views or not sample.id.endswith(FLIP_SUFFIX) for sample in by_shard[name])
            for name in self.shard_names(split)
        ]

    def count(self, split: str, *, all_views: bool = False) -> int:
        """Return how many records of a split are drawn per epoch, by all ranks together."""
        return sum(self.shard_sizes(split, all_views=all_views))

    def loader(self, split: str, options: LoaderOptions | None = None) -> Loader:
        """Return a loader of a split's batches."""
        return Loader(self, split, options)

    def as_webdataset(self, split: str, *, all_views: bool = False) -> FluidWrapper:
        """Return a stock ``webdataset`` pipeline over a split of a tar version, decoded.

        Its samples are dicts: ``__key__`` (the record id), ``embeddings.npy`` [P, D],
        ``slot_labels.npy`` [P, 4], ``slot_pixels.npy`` [P, 4], ``label_count.npy`` [P],
        ``slot_planes.npy`` [P, 3, 128], ``label_map.png`` (uint16 [32·ny, 32·nx]) and ``json``.
        Ranks and DataLoader workers take their own shards each; shuffle, map and batch it as any
        other pipeline. Shards are compared with the index as by ``read_shard``.
        """
        if self.index.container != "webdataset":
            raise UsageError(
                f"{self.path}: holds {self.index.container} shards: webdataset reads tars; build "
                "with --format webdataset, or use loader"
            )
        try:
            import webdataset  # noqa: PLC0415  # slow to load
        except ImportError as error:
            raise UsageError(
                "webdataset is not installed: run pip install webdataset, or use loader"
            ) from error
        urls = [str(self.path / name) for name in self.shard_names(split)]
        pipeline = webdataset.FluidWrapper(webdataset.SimpleShardList(urls))
        for stage in (
            webdataset.split_by_node,
            webdataset.split_by_worker,
            _DecodedSamples(self._shards, all_views),
        ):
            pipeline.append(stage)
        return pipeline


@dataclass(frozen=True)
class _DecodedSamples:
    """A stage of a webdataset pipeline: the samples of each shard."""

    shards: ProvedShards
    all_views: bool

    def __call__(self, sources: Iterable[dict[str, str]]) -> Iterator[dict[str, Any]]:
        for source in sources:
            url = source["url"]
            shard = self.shards.open(Path(url).name)
            assert isinstance(shard, TarShard)  # nothing else is given
            for row, image_id in enumerate(shard.image_ids):
                if self.all_views or not image_id.endswith(FLIP_SUFFIX):
                    record = shard.read(row)
                    yield {
                        "__key__": image_id,
                        "__url__": url,
                        "__local_path__": url,
                        **{f"{name}.npy": getattr(record, name) for name in _ARRAYS},
                        "label_map.png": record.decode_label_map(),
                        "json": shard.info(row).model_dump(mode="json"),
                    }


open = ShardDataset.open  # noqa: A001  # used as vocprep.open("shards/context")
