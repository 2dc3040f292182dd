"""The samples of a dataset in a data dir: the image ids of its splits and where their files are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vocprep.data_dir.missing_files import list_folder
from vocprep.data_dir.split_files import PLAIN_NAME, read_split_file
from vocprep.errors import DataDirError, UsageError
from vocprep.files.names import DATA_DIR, OTHER, found_at, is_plain_name, names_in
from vocprep.manifests import DatasetManifest
from vocprep.storage.places import local_path
from vocprep.validation import explain, printable

DATA_DIR_VARIABLE = "VOCPREP_DATA_DIR"
_MOST_SPLITS = 10
"""Names of split files that a message lists."""


@dataclass(frozen=True, kw_only=True)
class SampleRef:
    """Where one sample's two files are."""

    image_id: str
    split: str
    image_path: Path
    label_path: Path


def default_data_dir() -> Path:
    """Return ``$VOCPREP_DATA_DIR``, else ``./data``."""
    return local_path(os.environ.get(DATA_DIR_VARIABLE) or "data")


def read_split(data_dir: Path, dataset: DatasetManifest, split: str) -> list[str]:
    """Return the image ids of a split, sorted; ``dataset.split_flags`` chooses among flagged ones.

    Raises DataDirError when the file is missing or holds anything but ids (see
    ``vocprep.data_dir.split_files``), UsageError for a split whose name is no plain one.
    """
    return sorted(_read_split(data_dir, dataset, split))


def _read_split(data_dir: Path, dataset: DatasetManifest, split: str) -> dict[str, int]:
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


def _empty_split(data_dir: Path, dataset: DatasetManifest, split: str) -> DataDirError:
    flags = f" with the flags {dataset.split_flags!r}" if dataset.split_flags else ""
    return DataDirError(
        f"{split_path(data_dir, dataset, split)}: expected at least one image id{flags}, found "
        "none; restore the file, or leave the split out with --splits"
    )


def split_path(data_dir: Path, dataset: DatasetManifest, split: str) -> Path:
    """Return where a split's file is; UsageError for a split whose name is no plain one."""
    if not is_plain_name(split):
        raise UsageError(f"split {printable(split)!r}: {PLAIN_NAME}")
    return data_dir / dataset.split_files / f"{split}.txt"


def _splits_in(folder: Path, data_dir: Path) -> str:
    """Return for people which split files there are, or what the data dir is instead."""
    try:
        names = names_in(folder)
    except (FileNotFoundError, NotADirectoryError):
        found = found_at(data_dir)
        return f"no {folder}" if found in (DATA_DIR, OTHER) else f"{found} at {data_dir}"
    except OSError as error:
        return f"{folder}, which cannot be read: {explain(error)}"
    stems = sorted(Path(name).stem for name in names if name.endswith(".txt"))
    plain = [stem for stem in stems if is_plain_name(stem)]
    more = f" and {len(plain) - _MOST_SPLITS} more" if len(plain) > _MOST_SPLITS else ""
    return f"splits {', '.join(plain[:_MOST_SPLITS])}{more}" if plain else f"no split in {folder}"


def list_samples(  # which samples, and what to do about missing files
    data_dir: Path,
    dataset: DatasetManifest,
    splits: Sequence[str],
    limit: int | None = None,
    *,
    allow_missing: bool = False,
    skip_option: str | None = None,
) -> list[SampleRef]:
    """Return the samples of the splits in id order, at most ``limit`` of each split.

    Every image and label file must exist, unless ``allow_missing``. Raises DataDirError with the
    first missing file or the first split that lists no image, UsageError when an id belongs to two
    of the splits. ``skip_option`` is the caller's option that leaves samples without files out, for
    the message.
    """
    owner: dict[str, str] = {}
    lines: dict[str, int] = {}
    for split in splits:
        numbered = _read_split(data_dir, dataset, split)
        if not numbered:
            raise _empty_split(data_dir, dataset, split)
        for image_id in sorted(numbered)[:limit]:
            if image_id in owner:
                first, second = owner[image_id], split
                raise UsageError(
                    f"splits {first} and {second} both hold image {image_id}, line "
                    f"{lines[image_id]} of {first}.txt and line {numbered[image_id]} of "
                    f"{second}.txt in {data_dir / dataset.split_files}: expected splits that share "
                    "no image; name fewer with --splits, or remove one line"
                )
            owner[image_id], lines[image_id] = split, numbered[image_id]
    samples = [
        SampleRef(
            image_id=image_id,
            split=owner[image_id],
            image_path=data_dir / dataset.images / f"{image_id}.jpg",
            label_path=data_dir / dataset.labels / f"{image_id}.{dataset.label_kind}",
        )
        for image_id in sorted(owner)
    ]
    if samples and not allow_missing:
        _check_present(samples, data_dir, dataset, skip_option)
    return samples


def _check_present(
    samples: Sequence[SampleRef], data_dir: Path, dataset: DatasetManifest, skip_option: str | None
) -> None:
    """Raise DataDirError when the image or label file of a listed id is missing."""
    hint = _download_hint(data_dir, dataset)
    try:
        kinds = [
            list_folder("image", [sample.image_path for sample in samples]),
            list_folder("label map", [sample.label_path for sample in samples]),
        ]
    except DataDirError as error:
        raise DataDirError(f"{error}; check --data-dir and the dataset{hint}") from error
    lacking = {path.stem for kind in kinds for path in kind.missing}
    skip = f", or leave such images out with {skip_option} {len(lacking)}" if skip_option else ""
    for kind in kinds:
        if kind.missing:
            raise DataDirError(f"{kind.in_words()}{hint}{skip}")


def _download_hint(data_dir: Path, dataset: DatasetManifest) -> str:
    if not dataset.sources:
        return ""
    return f", or run: vocprep download {dataset.reference} --data-dir {data_dir}"
