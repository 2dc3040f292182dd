"""The samples of a dataset in a data dir: the image ids of its splits and where their files are."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vocprep.errors import DataDirError, UsageError
from vocprep.files import is_plain_name
from vocprep.manifests import DatasetManifest

DATA_DIR_VARIABLE = "VOCPREP_DATA_DIR"
_PLAIN = "expected 1 to 64 characters, none outside A-Z a-z 0-9 _ -"


@dataclass(frozen=True, kw_only=True)
class SampleRef:
    """Where one sample's two files are."""

    image_id: str
    split: str
    image_path: Path
    label_path: Path


def default_data_dir() -> Path:
    """Return ``$VOCPREP_DATA_DIR``, else ``./data``."""
    return Path(os.environ.get(DATA_DIR_VARIABLE) or "data")


def read_split(data_dir: Path, dataset: DatasetManifest, split: str) -> list[str]:
    """Return the image ids of a split, sorted.

    VOC's files hold one id per line; what follows a blank on the line (a flag in per-class files)
    is not part of it. Raises DataDirError when the file is missing or lists an id twice.
    """
    if not is_plain_name(split):
        raise UsageError(f"split {split!r}: {_PLAIN}")
    path = data_dir / dataset.split_files / f"{split}.txt"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        present = sorted(item.stem for item in path.parent.glob("*.txt"))
        found = f"found splits {', '.join(present)}" if present else f"found no {path.parent}"
        raise DataDirError(
            f"{path}: no such split file of dataset {dataset.name}; {found}; check --splits and "
            f"--data-dir{_download_hint(data_dir, dataset)}"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataDirError(f"{path}: cannot be read as a split file: {error}") from error
    image_ids = sorted(line.split()[0] for line in lines if line.strip())
    for image_id, following in itertools.pairwise(image_ids):
        if image_id == following:
            raise DataDirError(f"{path}: image id {image_id} is listed twice; remove one line")
    for image_id in image_ids:
        if not is_plain_name(image_id):
            raise DataDirError(f"{path}: image id {image_id!r}: {_PLAIN}; rename the image")
    return image_ids


def list_samples(
    data_dir: Path,
    dataset: DatasetManifest,
    splits: Sequence[str],
    limit: int | None = None,
    *,
    allow_missing: bool = False,
) -> list[SampleRef]:
    """Return the samples of the splits in id order, at most ``limit`` of each split.

    Every image and label file must exist, unless ``allow_missing``. Raises DataDirError with the
    first missing file, UsageError when an id belongs to two of the splits.
    """
    owner: dict[str, str] = {}
    for split in splits:
        for image_id in read_split(data_dir, dataset, split)[:limit]:
            if image_id in owner:
                raise UsageError(
                    f"splits {owner[image_id]} and {split} both hold image {image_id}: expected "
                    "splits that share no image; name fewer with --splits"
                )
            owner[image_id] = split
    samples = [
        SampleRef(
            image_id=image_id,
            split=owner[image_id],
            image_path=data_dir / dataset.images / f"{image_id}.jpg",
            label_path=data_dir / dataset.labels / f"{image_id}.{dataset.label_kind}",
        )
        for image_id in sorted(owner)
    ]
    if not allow_missing:
        _check_present(samples, data_dir, dataset)
    return samples


def _check_present(samples: Sequence[SampleRef], data_dir: Path, dataset: DatasetManifest) -> None:
    """Raise DataDirError when the image or label file of a listed id is missing.

    Folders are listed once: ten thousand stat calls take seconds on a network disk.
    """
    for kind, folder, paths in (
        ("image", dataset.images, [sample.image_path for sample in samples]),
        ("label map", dataset.labels, [sample.label_path for sample in samples]),
    ):
        try:
            present = {entry.name for entry in os.scandir(data_dir / folder)}
        except OSError:
            present = set()
        missing = [path for path in paths if path.name not in present]
        if missing:
            raise DataDirError(
                f"{missing[0]}: the {kind} of a listed image id is missing ({len(missing)} of "
                f"{len(paths)} {kind}s); add the files or remove the ids from the split file"
                f"{_download_hint(data_dir, dataset)}"
            )


def _download_hint(data_dir: Path, dataset: DatasetManifest) -> str:
    if not dataset.sources:
        return ""
    return f", or run: vocprep download {dataset.name} --data-dir {data_dir}"
