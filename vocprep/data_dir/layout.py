"""The samples of a dataset in a data dir: the image ids of its splits and where their files are."""

from __future__ import annotations

import heapq
import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain
from pathlib import Path
from typing import overload

from vocprep.data_dir.image_ids import ImageIds
from vocprep.data_dir.missing_files import holds_all, list_folder
from vocprep.data_dir.split_files import PLAIN_NAME, ListedIds, read_split_file
from vocprep.errors import DataDirError, UsageError
from vocprep.files.names import DATA_DIR, OTHER, is_plain_name
from vocprep.manifests import DatasetManifest
from vocprep.storage.places import Place, local_path, parse_place
from vocprep.storage.reading import found_in, names_at
from vocprep.validation import explain, printable

DATA_DIR_VARIABLE = "VOCPREP_DATA_DIR"
IMAGE_SUFFIX = ".jpg"
_MOST_SPLITS = 10
"""Names of split files that a message lists."""


@dataclass(frozen=True, kw_only=True)
class SampleRef:
    """Where one sample's two files are."""

    image_id: str
    split: str
    image_path: Place
    label_path: Place


@dataclass(frozen=True, kw_only=True)
class SampleFiles:
    """Where the images and the label maps of a dataset are."""

    images: Place
    labels: Place
    label_suffix: str

    def of(self, split: str, image_id: str) -> SampleRef:
        """Return the files of one sample."""
        return SampleRef(
            image_id=image_id,
            split=split,
            image_path=self.images / f"{image_id}{IMAGE_SUFFIX}",
            label_path=self.labels / f"{image_id}{self.label_suffix}",
        )


@dataclass(frozen=True, kw_only=True)
class SplitSamples(Sequence[SampleRef]):
    """Samples of one split in id order, of which only the ids are in memory."""

    split: str
    image_ids: ImageIds
    files: SampleFiles

    def __len__(self) -> int:
        return len(self.image_ids)

    @overload
    def __getitem__(self, place: int) -> SampleRef: ...

    @overload
    def __getitem__(self, place: slice) -> SplitSamples: ...

    def __getitem__(self, place: int | slice) -> SampleRef | SplitSamples:
        if isinstance(place, slice):
            return replace(self, image_ids=self.image_ids[place])
        return self.files.of(self.split, self.image_ids[place])

    def __iter__(self) -> Iterator[SampleRef]:
        return (self.files.of(self.split, image_id) for image_id in self.image_ids)


class JoinedSamples(Sequence[SampleRef]):
    """The samples of several sequences, one after the other."""

    def __init__(self, parts: Sequence[Sequence[SampleRef]]) -> None:
        self._parts = parts
        self._ends = list(accumulate(map(len, parts)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, place: int) -> SampleRef: ...

    @overload
    def __getitem__(self, place: slice) -> list[SampleRef]: ...

    def __getitem__(self, place: int | slice) -> SampleRef | list[SampleRef]:
        places = range(len(self))[place]
        return self._at(places) if isinstance(places, int) else [self._at(each) for each in places]

    def __iter__(self) -> Iterator[SampleRef]:
        return chain.from_iterable(self._parts)

    def _at(self, place: int) -> SampleRef:
        part = bisect_right(self._ends, place)
        return self._parts[part][place - self._ends[part]]  # counted from the part's end


def default_data_dir() -> Path:
    """Return ``$VOCPREP_DATA_DIR``, else ``./data``."""
    return local_path(os.environ.get(DATA_DIR_VARIABLE) or "data", f"${DATA_DIR_VARIABLE}")


def default_data_place() -> Place:
    """Return ``$VOCPREP_DATA_DIR``, which may be a URL here, else ``./data``."""
    return parse_place(os.environ.get(DATA_DIR_VARIABLE) or "data")


def read_split(data_dir: Place, dataset: DatasetManifest, split: str) -> list[str]:
    """Return the image ids of a split, sorted; ``dataset.split_flags`` chooses among flagged ones.

    Raises DataDirError when the file is missing or holds anything but ids (see
    ``vocprep.data_dir.split_files``), UsageError for a split whose name is no plain one.
    """
    return list(read_split_ids(data_dir, dataset, split))


def read_split_ids(data_dir: Place, dataset: DatasetManifest, split: str) -> ImageIds:
    """Return the image ids of a split in compact form; see ``read_split``."""
    return _read_split(data_dir, dataset, split).sorted()


def _read_split(data_dir: Place, dataset: DatasetManifest, split: str) -> ListedIds:
    """Return the image ids of a split, each with its line."""
    path = split_path(data_dir, dataset, split)
    try:
        return read_split_file(path, dataset.split_flags)
    except FileNotFoundError as error:
        found = f"found {_splits_in(path.parent, data_dir)}"
        raise DataDirError(
            f"{path}: no such split file of dataset {dataset.name}; {found}; check the split's "
            f"name and --data-dir{_download_hint(data_dir, dataset)}"
        ) from error


def _empty_split(data_dir: Place, dataset: DatasetManifest, split: str) -> DataDirError:
    flags = f" with the flags {dataset.split_flags!r}" if dataset.split_flags else ""
    return DataDirError(
        f"{split_path(data_dir, dataset, split)}: expected at least one image id{flags}, found "
        "none; restore the file, or leave the split out with --splits"
    )


def split_path(data_dir: Place, dataset: DatasetManifest, split: str) -> Place:
    """Return where a split's file is; UsageError for a split whose name is no plain one."""
    if not is_plain_name(split):
        raise UsageError(f"split {printable(split)!r}: {PLAIN_NAME}")
    return data_dir / (dataset.split_files or ".") / f"{split}.txt"


def _splits_in(folder: Place, data_dir: Place) -> str:
    """Return for people which split files there are, or what the data dir is instead."""
    try:
        names = names_at(folder)
    except (FileNotFoundError, NotADirectoryError):
        found = found_in(data_dir)
        return f"no {folder}" if found in (DATA_DIR, OTHER) else f"{found} at {data_dir}"
    except OSError as error:
        return f"{folder}, which cannot be read: {explain(error)}"
    stems = sorted(Path(name).stem for name in names if name.endswith(".txt"))
    plain = [stem for stem in stems if is_plain_name(stem)]
    more = f" and {len(plain) - _MOST_SPLITS} more" if len(plain) > _MOST_SPLITS else ""
    return f"splits {', '.join(plain[:_MOST_SPLITS])}{more}" if plain else f"no split in {folder}"


def list_samples(  # which samples, and what to do about missing files
    data_dir: Place,
    dataset: DatasetManifest,
    splits: Sequence[str],
    limit: int | None = None,
    *,
    allow_missing: bool = False,
    skip_option: str | None = None,
) -> list[SampleRef]:
    """Return the samples of the splits in id order, at most ``limit`` of each split.

    Files and errors are those of ``list_splits``.
    """
    listed = list_splits(
        data_dir, dataset, splits, limit, allow_missing=allow_missing, skip_option=skip_option
    )
    return list(heapq.merge(*listed.values(), key=lambda sample: sample.image_id))


def list_splits(  # which samples, and what to do about missing files
    data_dir: Place,
    dataset: DatasetManifest,
    splits: Sequence[str],
    limit: int | None = None,
    *,
    allow_missing: bool = False,
    skip_option: str | None = None,
) -> dict[str, SplitSamples]:
    """Return the samples of each split in id order, at most ``limit`` of each.

    Every image and label file must exist, unless ``allow_missing``. Raises DataDirError with the
    first missing file or the first split that lists no image, UsageError when an id belongs to two
    of the splits. ``skip_option`` is the caller's option that leaves samples without files out, for
    the message.
    """
    files = SampleFiles(
        images=data_dir / dataset.images,
        labels=data_dir / dataset.labels,
        label_suffix=f".{dataset.label_kind}",
    )
    found: dict[str, SplitSamples] = {}
    for split in splits:
        listed = _read_split(data_dir, dataset, split)
        if not listed:
            raise _empty_split(data_dir, dataset, split)
        image_ids = listed.sorted()[:limit]
        _check_disjoint(data_dir, dataset, split, image_ids, found)
        found[split] = SplitSamples(split=split, image_ids=image_ids, files=files)
    if found and not allow_missing:
        _check_present(found, data_dir, dataset, skip_option)
    return found


def _check_disjoint(
    data_dir: Place,
    dataset: DatasetManifest,
    split: str,
    image_ids: ImageIds,
    others: Mapping[str, SplitSamples],
) -> None:
    """Raise UsageError naming the first id that another split holds too."""
    common = {other: image_ids.common(samples.image_ids) for other, samples in others.items()}
    first = min(((ids[0], other) for other, ids in common.items() if ids), default=None)
    if first is None:
        return
    image_id, other = first
    lines = [_read_split(data_dir, dataset, each)[image_id] for each in (other, split)]
    raise UsageError(
        f"splits {other} and {split} both hold image {image_id}, line {lines[0]} of {other}.txt "
        f"and line {lines[1]} of {split}.txt in {split_path(data_dir, dataset, split).parent}: "
        "expected splits that share no image; name fewer with --splits, or remove one line"
    )


def _check_present(
    splits: Mapping[str, SplitSamples],
    data_dir: Place,
    dataset: DatasetManifest,
    skip_option: str | None,
) -> None:
    """Raise DataDirError when the image or label file of a listed id is missing."""
    parts = [samples.image_ids for samples in splits.values()]
    files = next(iter(splits.values())).files
    folders = {files.images: IMAGE_SUFFIX, files.labels: files.label_suffix}
    if all(holds_all(folder, parts, suffix) for folder, suffix in folders.items()):
        return
    hint = _download_hint(data_dir, dataset)
    image_ids = ImageIds.union(parts)
    kinds = (("image", files.images, IMAGE_SUFFIX), ("label map", files.labels, files.label_suffix))
    try:
        listed = [
            list_folder(kind, [folder / f"{image_id}{suffix}" for image_id in image_ids])
            for kind, folder, suffix in kinds
        ]
    except DataDirError as error:
        raise DataDirError(f"{error}; check --data-dir and the dataset{hint}") from error
    lacking = {path.stem for kind in listed for path in kind.missing}
    skip = f", or leave such images out with {skip_option} {len(lacking)}" if skip_option else ""
    for kind in listed:
        if kind.missing:
            raise DataDirError(f"{kind.in_words()}{hint}{skip}")


def _download_hint(data_dir: Place, dataset: DatasetManifest) -> str:
    if not dataset.sources or not isinstance(data_dir, Path):
        return ""
    return f", or run: vocprep download {dataset.reference} --data-dir {data_dir}"
