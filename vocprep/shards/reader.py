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

import numpy as np
import torch

from vocprep.errors import ShardError, UsageError
from vocprep.files.ids import image_id_of, is_plain, view_suffix
from vocprep.labels.label_space import LabelSpace
from vocprep.options import LoaderOptions
from vocprep.progress import NO_PROGRESS, Progress
from vocprep.shards.codecs.tar import TarShard
from vocprep.shards.columns import Columns
from vocprep.shards.containers import ProvedShards, ShardReader
from vocprep.shards.feed.batches import Batch, collate
from vocprep.shards.feed.datasets import ResidentDataset, StreamingDataset
from vocprep.shards.feed.loading import Loader
from vocprep.shards.feed.order import epoch_order
from vocprep.shards.index import DatasetIndex, ShardEntry, remake_advice
from vocprep.shards.one_record import RangedRecords
from vocprep.shards.record import PATCH_FIELDS, Record, record_ids_of
from vocprep.shards.samples import QuarantinedSample, SampleEntry
from vocprep.shards.spans import ids_sha256
from vocprep.shards.version import Version
from vocprep.storage.places import Place, parse_place
from vocprep.views import ViewChoice, all_plain, chosen_rows, is_chosen, is_crop, per_image

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


class ShardDataset:
    """A finished dataset version, opened by its index."""

    def __init__(self, path: Place, version: Version) -> None:
        self.path = path
        self.version = version
        self.index: DatasetIndex = version.index
        # Shared with the worker processes of a DataLoader, so that none proves a shard again.
        fingerprints = torch.zeros(len(version.index.shards), dtype=torch.int64)
        fingerprints.share_memory_()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._shards = ProvedShards(path, version.index, fingerprints)
        self._last: tuple[str, ShardReader] | None = None
        self._ranged = None if isinstance(path, Path) else RangedRecords(path, version.index)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_last": None}  # not a whole shard into every worker process

    @classmethod
    def open(cls, path: Place | str) -> Self:
        """Open what ``vocprep build-shards`` wrote: a folder, or the URL of one in an object store.

        Reads dataset.json alone: time and memory follow the number of shards. ShardError when it is
        no finished version, or when a file is missing or has another size.
        """
        path = parse_place(path)
        return cls(path, Version.open(path))

    @property
    def samples(self) -> Sequence[SampleEntry]:
        """The lines of samples.jsonl, in id order; read when first used, about 2 kB each."""
        return self.version.samples

    @property
    def quarantined(self) -> Sequence[QuarantinedSample]:
        """Images that no record could be made of, and why; the shards hold nothing of them."""
        return self.version.quarantined

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        return tuple(sorted(self.index.recipe.splits))

    @property
    def label_space(self) -> LabelSpace:
        """The label space, read from labels.json; ShardError when it is not the recipe's."""
        return self.version.label_space

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

    def read_shard(self, name: str, *, all_views: ViewChoice = False) -> Iterator[Record]:
        """Yield a shard's records in row order; ShardError when they are not those of the index.

        ``all_views`` is as in ``LoaderOptions``.
        """
        for record in self._open_shard(name):
            if is_chosen(record.image_id, all_views):
                yield record

    def read_columns(self, name: str, *, all_views: ViewChoice = False) -> Columns:
        """Return what ``read_shard`` yields as columns, from which batches are gathered."""
        columns = self._open_shard(name).columns()
        chosen = chosen_rows(columns.image_ids, all_views)
        return columns if len(chosen) == len(columns.image_ids) else columns.part(np.array(chosen))

    def prefetch(self, names: Sequence[str]) -> None:
        """Begin to fetch shards that are read next: of a folder there is nothing to fetch."""
        for name in names:
            self._shards.prefetch(name)

    def _open_shard(self, name: str) -> ShardReader:
        """Return the shard; ShardError when its records are not those that it is to span."""
        shard = self._shards.open(name)
        expected = self._entries[name].records
        is_right = len(shard) == expected and (
            ids_sha256(shard.image_ids) == self.version.spans[name].ids_sha256
        )
        if not is_right:
            raise ShardError(
                f"{self.path / name}: holds other records than the {expected:,} that dataset.json "
                f"lists; {remake_advice(self.path)}"
            )
        self._check_views(name, shard.image_ids)
        return shard

    def _check_views(self, name: str, record_ids: Sequence[str]) -> None:
        """Raise ShardError where records are not the views that the recipe has of each image."""
        recipe = self.index.recipe
        if recipe.crops is None:
            odd = [] if all_plain(record_ids) else [each for each in record_ids if is_crop(each)]
            expected = "none that ends as those of crops, which the recipe does not have"
        else:
            images = [record_id for record_id in record_ids if is_plain(record_id)]
            whole = [*record_ids_of(images, recipe.record_views)]
            odd = sorted({*whole}.symmetric_difference(record_ids))
            expected = f"of each image the views {', '.join(recipe.record_views)}"
        if odd:
            raise ShardError(
                f"{self.path / name}: record ids such as {odd[0]!r}: expected {expected}; build "
                "the shards again, from pictures of other names where they end so"
            )

    def record(self, image_id: str) -> Record:
        """Return one record, ``ID#flip`` for a mirrored view, ``ID#crop1`` for the first crop.

        Reads its shard, which is kept for the next call; of an HDF5 shard in an object store, which
        the cache does not hold, the record alone. UsageError when there is none of this id.
        """
        if self._ranged is not None:
            alone = self._ranged.read(image_id, self.version.search.find(image_id))
            if alone is not None:
                return alone
        found = self._find(image_id)
        if found is None:
            raise UsageError(f"{self.path}: no record {image_id!r}: {self._why_missing(image_id)}")
        shard, row = found
        record = shard.read(row)
        # Copied, so that what a caller writes to is not what the next call returns.
        fields: dict[str, Any] = {name: getattr(record, name).copy() for name in _ARRAYS}
        return replace(record, **fields)

    def _find(self, record_id: str) -> tuple[ShardReader, int] | None:
        """Return the shard that holds a record, and its row there; None when none does."""
        names = list(self.version.search.find(record_id))
        if self._last is not None:  # one split's records are often asked for in their order
            split = self._entries[self._last[0]].split
            names.sort(key=lambda name: self._entries[name].split != split)
        for name in names:
            shard = self._kept(name)
            if record_id in shard.image_ids:
                return shard, shard.image_ids.index(record_id)
        return None

    def _kept(self, name: str) -> ShardReader:
        """Return a shard, kept for the next call."""
        if self._last is None or self._last[0] != name:
            self._last = name, self._open_shard(name)
        return self._last[1]

    def _why_missing(self, image_id: str) -> str:
        """Return why no record has this id."""
        plain, view = image_id_of(image_id), view_suffix(image_id)
        if bad := next((bad for bad in self.version.stream_quarantined() if bad.id == plain), None):
            return f"{plain} is in quarantine.jsonl: {bad.reason}"
        if view and self._find(plain) is not None:
            crops = self.index.recipe.crops
            if view != "#flip" and crops is not None:
                return f"this version holds the crops 1 to {crops.count} of each image"
            return f"this version holds no {'mirrored views' if view == '#flip' else 'crops'}"
        nearest = list(self.version.search.nearest(plain))
        near = [record_id for name in nearest for record_id in self._kept(name).image_ids]
        if close := get_close_matches(plain, near, n=1):
            return f"did you mean {close[0]!r}?"
        if not nearest:
            return "this version holds no records"
        example = min(span.first_id for span in self.version.spans.values())
        return f"expected an id of samples.jsonl, such as {example!r}"

    @cached_property
    def _entries(self) -> dict[str, ShardEntry]:
        return {shard.name: shard for shard in self.index.shards}

    def __len__(self) -> int:
        """Return the number of records of all splits, all views included."""
        return sum(shard.records for shard in self.index.shards)

    def __repr__(self) -> str:
        counts: Counter[str] = Counter()
        for shard in self.index.shards:
            counts[shard.split] += shard.records
        splits = ", ".join(f"{split} {counts[split]:,}" for split in self.splits)
        return f"ShardDataset('{self.path}': {self.index.short_id}, records: {splits})"

    def shard_sizes(self, split: str, *, all_views: ViewChoice = False) -> list[int]:
        """Return how many records ``read_shard`` yields of each of a split's shards."""
        names, recipe = self.shard_names(split), self.index.recipe
        images = [self.version.spans[name].images for name in names]
        if recipe.crops is not None:  # each image has all views
            return [count * per_image(all_views, recipe.record_views) for count in images]
        has_flipped = all_views is True or (all_views and "flip" in all_views)
        return [self._entries[name].records for name in names] if has_flipped else images

    def count(self, split: str, *, all_views: ViewChoice = False) -> int:
        """Return how many records of a split are drawn per epoch, by all ranks together."""
        return sum(self.shard_sizes(split, all_views=all_views))

    def loader(
        self, split: str, options: LoaderOptions | None = None, progress: Progress = NO_PROGRESS
    ) -> Loader:
        """Return a loader of a split's batches."""
        return Loader(self, split, options, progress)

    def as_webdataset(self, split: str, *, all_views: ViewChoice = False) -> FluidWrapper:
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
    all_views: ViewChoice

    def __call__(self, sources: Iterable[dict[str, str]]) -> Iterator[dict[str, Any]]:
        for source in sources:
            url = source["url"]
            shard = self.shards.open(Path(url).name)
            assert isinstance(shard, TarShard)  # nothing else is given
            for row, image_id in enumerate(shard.image_ids):
                if is_chosen(image_id, self.all_views):
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
"""``ShardDataset.open``: the version in a folder, or at the URL of one."""
