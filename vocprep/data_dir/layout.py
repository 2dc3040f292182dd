"""The samples of a dataset in a data dir: the image ids of its splits and where their files are."""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain
from typing import overload

from vocprep.data_dir.folders import FileNames
from vocprep.data_dir.image_ids import ImageIds
from vocprep.data_dir.limits import Limit
from vocprep.data_dir.presence import check_present, find_images
from vocprep.data_dir.splits import (
    ListedSplit,
    SplitFolders,
    download_hint,
    image_names,
    list_split,
    read_list,
    split_path,
)
from vocprep.errors import DataDirError, UsageError
from vocprep.manifests import DatasetManifest
from vocprep.storage.places import Place
from vocprep.validation import printable


@dataclass(frozen=True, kw_only=True)
class SampleRef:
    """Where one sample's two files are."""

    image_id: str
    split: str
    image_path: Place
    label_path: Place


@dataclass(frozen=True, kw_only=True)
class SplitSamples(Sequence[SampleRef]):
    """Samples of one split in id order, of which only the ids are in memory."""

    split: str
    image_ids: ImageIds
    folders: SplitFolders
    suffixes: tuple[str, ...]
    """Suffixes of the images, as the files have them."""
    suffix_numbers: bytes
    """[N]: which of them each image has."""
    unlabelled: int = 0
    """Images in the split's folder that are no samples, since no label map of theirs is there."""

    def __len__(self) -> int:
        return len(self.image_ids)

    @overload
    def __getitem__(self, place: int) -> SampleRef: ...

    @overload
    def __getitem__(self, place: slice) -> SplitSamples: ...

    def __getitem__(self, place: int | slice) -> SampleRef | SplitSamples:
        if isinstance(place, slice):
            return replace(
                self, image_ids=self.image_ids[place], suffix_numbers=self.suffix_numbers[place]
            )
        return self._sample(self.image_ids[place], self.suffix_numbers[place])

    def __iter__(self) -> Iterator[SampleRef]:
        return map(self._sample, self.image_ids, self.suffix_numbers)

    def _sample(self, image_id: str, suffix_number: int) -> SampleRef:
        return SampleRef(
            image_id=image_id,
            split=self.split,
            image_path=self.folders.image_path(image_id, self.suffixes[suffix_number]),
            label_path=self.folders.label_path(image_id),
        )


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


def read_split(data_dir: Place, dataset: DatasetManifest, split: str) -> list[str]:
    """Return the image ids of a split, sorted; ``dataset.split_flags`` chooses among flagged ones.

    Raises DataDirError when the list or folder of the split is missing or holds anything but ids
    (see ``vocprep.data_dir.splits``), UsageError for a split that the dataset cannot have.
    """
    return list(read_split_ids(data_dir, dataset, split))


def read_split_ids(data_dir: Place, dataset: DatasetManifest, split: str) -> ImageIds:
    """Return the image ids of a split in compact form; see ``read_split``."""
    return list_split(data_dir, dataset, split).image_ids


def list_samples(  # which samples, and what to do about missing files
    data_dir: Place,
    dataset: DatasetManifest,
    splits: Sequence[str],
    limit: Limit | None = None,
    *,
    allow_missing: bool = False,
    skip_option: str | None = None,
) -> list[SampleRef]:
    """Return the samples of the splits in id order, as many as the limit allows.

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
    limit: Limit | None = None,
    *,
    allow_missing: bool = False,
    skip_option: str | None = None,
) -> dict[str, SplitSamples]:
    """Return the samples of each split in id order, of each the first that the limit allows.

    Every image and label file must exist, unless ``allow_missing``. Raises DataDirError with the
    first missing file, with two images of one id, or for a split that lists no image; UsageError
    when an id belongs to two of the splits. ``skip_option`` is the caller's option that leaves
    samples without files out, for the message.
    """
    images = image_names(dataset)
    listed = _list_all(data_dir, dataset, splits, images, limit or Limit())
    codes = find_images(images, listed)
    if listed and not allow_missing:
        check_present(data_dir, dataset, listed, (images, codes), skip_option)
    suffixes = (images.end_of(0), *images.ends)
    return {
        each.folders.split: SplitSamples(
            split=each.folders.split,
            image_ids=each.image_ids,
            folders=each.folders,
            suffixes=suffixes,
            suffix_numbers=of_split.tobytes(),
            unlabelled=each.unlabelled,
        )
        for each, of_split in zip(listed, codes, strict=True)
    }


def _list_all(
    data_dir: Place,
    dataset: DatasetManifest,
    splits: Sequence[str],
    images: FileNames,
    limit: Limit,
) -> list[ListedSplit]:
    """Return the ids of the splits, of each the first ones that the limit allows."""
    repeated = next((split for split, count in Counter(splits).items() if count > 1), None)
    if repeated is not None:
        raise UsageError(f"splits: {printable(repeated)} is named twice; name it once")
    listed = [list_split(data_dir, dataset, split, images) for split in splits]
    for each in listed:
        if not each.image_ids:
            raise _empty_split(data_dir, dataset, each.folders)
    taken = limit.of({each.folders.split: len(each.image_ids) for each in listed})
    limited = [_first(each, taken[each.folders.split]) for each in listed]
    for row, each in enumerate(limited):
        _check_disjoint(data_dir, dataset, each, limited[:row])
    return limited


def _first(listed: ListedSplit, count: int) -> ListedSplit:
    codes = None if listed.codes is None else listed.codes[:count]
    return replace(listed, image_ids=listed.image_ids[:count], codes=codes)


def _empty_split(data_dir: Place, dataset: DatasetManifest, folders: SplitFolders) -> DataDirError:
    path = split_path(data_dir, dataset, folders.split)
    if path is None:
        return DataDirError(
            f"{folders.images}: expected images of split {folders.split}, files of "
            f"{', '.join(dataset.suffixes)}, found none; check images in the manifest, and "
            f"--data-dir{download_hint(data_dir, dataset)}"
        )
    flags = f" with the flags {dataset.split_flags!r}" if dataset.split_flags else ""
    return DataDirError(
        f"{path}: expected at least one image id{flags}, found none; restore the file, or leave "
        "the split out with --splits"
    )


def _check_disjoint(
    data_dir: Place,
    dataset: DatasetManifest,
    listed: ListedSplit,
    others: Sequence[ListedSplit],
) -> None:
    """Raise UsageError naming the first id that another split holds too."""
    common = {each.folders.split: listed.image_ids.common(each.image_ids) for each in others}
    first = min(((ids[0], other) for other, ids in common.items() if ids), default=None)
    if first is None:
        return
    image_id, other = first
    split = listed.folders.split
    places = [_where(data_dir, dataset, each, image_id) for each in (other, split)]
    raise UsageError(
        f"splits {other} and {split} both hold image {image_id}, {' and '.join(places)}: "
        "expected splits that share no image; name fewer with --splits, or remove one of the two"
    )


def _where(data_dir: Place, dataset: DatasetManifest, split: str, image_id: str) -> str:
    """Return in words where a split lists an image."""
    path = split_path(data_dir, dataset, split)
    if path is None:
        return f"by {SplitFolders.of(data_dir, dataset, split).label_path(image_id)}"
    listed = read_list(data_dir, dataset, split, image_names(dataset))
    return f"{listed.unit} {listed[image_id]} of {path}"
