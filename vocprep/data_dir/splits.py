"""The splits of a dataset: in which folders their files are, and which image ids they list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vocprep.data_dir.folders import (
    Codes,
    FileNames,
    KnownPictures,
    Wanted,
    all_files,
    find_files,
    inner_folder,
)
from vocprep.data_dir.image_ids import ImageIds
from vocprep.data_dir.split_files import ListedIds, read_split_file
from vocprep.data_dir.split_lists import read_split_list
from vocprep.dataset_manifest import SPLIT_FIELD
from vocprep.errors import DataDirError, UsageError
from vocprep.files.names import DATA_DIR, OTHER, PLAIN_NAME, is_plain_name, names_in
from vocprep.manifests import DatasetManifest
from vocprep.storage.places import Place
from vocprep.storage.reading import found_in, names_at
from vocprep.validation import explain, printable

_MOST_SPLITS = 10
"""Names of splits that a message lists."""


@dataclass(frozen=True, kw_only=True)
class SplitFolders:
    """Where the images and the label maps of one split are."""

    split: str
    images: Place
    labels: Place
    label_suffix: str
    prefix: str = ""
    """What image ids begin with, and the paths below the folders do not."""

    @classmethod
    def of(cls, data_dir: Place, dataset: DatasetManifest, split: str) -> SplitFolders:
        """Return the folders of a split; UsageError for a split whose name is no plain one."""
        if not is_plain_name(split):
            raise UsageError(f"split {printable(split)!r}: {PLAIN_NAME}")
        return cls(
            split=split,
            images=data_dir / dataset.images.replace(SPLIT_FIELD, split),
            labels=data_dir / dataset.labels.replace(SPLIT_FIELD, split),
            label_suffix=dataset.label_file_suffix,
            prefix=f"{split}/" if dataset.has_splits_in_ids else "",
        )

    def image_path(self, image_id: str, suffix: str) -> Place:
        """Return the path of an image whose suffix is known."""
        return self.images / f"{image_id.removeprefix(self.prefix)}{suffix}"

    def label_path(self, image_id: str) -> Place:
        """Return the path of a label map."""
        return self.labels / f"{image_id.removeprefix(self.prefix)}{self.label_suffix}"


def folders_of_id(data_dir: Place, dataset: DatasetManifest, image_id: str) -> SplitFolders:
    """Return the folders of an image; UsageError where its id names no split that it should."""
    split = image_id.partition("/")[0] if dataset.has_splits_in_ids else dataset.splits[0]
    return SplitFolders.of(data_dir, dataset, split)


def find_image(data_dir: Path, dataset: DatasetManifest, image_id: str) -> Path:
    """Return where the image of an id is, or where it is expected, if there is none."""
    folders = folders_of_id(data_dir, dataset, image_id)
    expected = Path(str(folders.image_path(image_id, dataset.suffixes[0])))
    if expected.is_file():
        return expected
    folder, names = expected.parent, image_names(dataset)
    stem = expected.name.removesuffix(dataset.suffixes[0])
    try:
        found = {split[0]: name for name in names_in(folder) if (split := names.split(name))}
    except OSError:
        return expected
    return expected.with_name(found.get(stem, expected.name))


def image_names(dataset: DatasetManifest) -> FileNames:
    """Return which files are images."""
    # Beside label maps in one folder, what ends as they do is one of them.
    is_shared = dataset.images == dataset.labels
    return FileNames(
        kind="image",
        accepted=dataset.suffixes,
        ignores_case=True,
        other_end=dataset.label_file_suffix if is_shared else None,
    )


def label_names(dataset: DatasetManifest) -> FileNames:
    """Return which files are label maps."""
    return FileNames(kind="label map", accepted=(dataset.label_file_suffix,))


@dataclass(frozen=True, kw_only=True, eq=False)
class ListedSplit:
    """The image ids of a split, sorted."""

    folders: SplitFolders
    image_ids: ImageIds
    codes: Codes | None = None
    """Of the images among ``FileNames.ends``, where the split's folder was listed."""
    unlabelled: int = 0
    """Images in the split's folder without a label map, which are not among the ids."""


def list_split(
    data_dir: Place, dataset: DatasetManifest, split: str, images: FileNames | None = None
) -> ListedSplit:
    """Return the image ids of a split: those of its list, or of all images in its folder.

    Raises DataDirError where there is no list or no folder, or it cannot be read; UsageError for a
    split that the dataset cannot have.
    """
    folders = SplitFolders.of(data_dir, dataset, split)
    images = images or image_names(dataset)
    if split_path(data_dir, dataset, split) is not None:
        listed = read_list(data_dir, dataset, split, images)
        return ListedSplit(folders=folders, image_ids=listed.sorted())
    return _list_folder(data_dir, dataset, folders, images)


def split_path(data_dir: Place, dataset: DatasetManifest, split: str) -> Place | None:
    """Return where a split's list is; None for splits without a list, UsageError for no split."""
    if not is_plain_name(split):
        raise UsageError(f"split {printable(split)!r}: {PLAIN_NAME}")
    if dataset.split_files is not None:
        return data_dir / dataset.split_files / f"{split}.txt"
    if dataset.split_lists is not None:
        if split not in dataset.split_lists:
            raise _no_such_split(dataset, split, [*dataset.split_lists])
        return Path(dataset.split_lists[split])
    if SPLIT_FIELD not in dataset.images + dataset.labels and split not in dataset.splits:
        raise _no_such_split(dataset, split, dataset.splits)
    return None


def _no_such_split(dataset: DatasetManifest, split: str, known: Sequence[str]) -> UsageError:
    return UsageError(
        f"split {split!r}: expected one of dataset {dataset.name}: {', '.join(known)}; check "
        "--splits, or add the split to the manifest"
    )


def read_list(
    data_dir: Place, dataset: DatasetManifest, split: str, images: FileNames
) -> ListedIds:
    """Return the image ids of a split's list, each with its line; see ``split_path``."""
    folders, path = SplitFolders.of(data_dir, dataset, split), split_path(data_dir, dataset, split)
    assert path is not None
    pictures = KnownPictures(folders.images, images, folders.prefix)
    try:
        if dataset.split_files is None and isinstance(path, Path):
            return read_split_list(path, split, pictures, dataset.split_flags)
        return read_split_file(path, pictures, dataset.split_flags)
    except FileNotFoundError as error:
        if dataset.split_files is None:
            raise DataDirError(
                f"{path}: no such list of the images of split {split}; check split_lists in the "
                "manifest, whose paths are relative to its folder"
            ) from error
        found = f"found {_splits_in(path.parent, data_dir)}"
        raise DataDirError(
            f"{path}: no such split file of dataset {dataset.name}; {found}; check the split's "
            f"name and --data-dir{download_hint(data_dir, dataset)}"
        ) from error


def _list_folder(
    data_dir: Place, dataset: DatasetManifest, folders: SplitFolders, images: FileNames
) -> ListedSplit:
    """Return the images in a split's folder: all of them where each split has a folder of its own.

    Else those with a label map.
    """
    left_out = inner_folder(folders.labels, folders.images)
    try:
        image_ids, codes = all_files(folders.images, images, folders.prefix, left_out)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataDirError(
            f"{folders.images}: expected the folder of the images of split {folders.split}, found "
            f"none; check the split's name, --data-dir and the dataset"
            f"{download_hint(data_dir, dataset)}"
        ) from error
    except OSError as error:
        raise DataDirError(
            f"{folders.images}: the folder of the images cannot be read: {explain(error)}"
        ) from error
    if dataset.has_splits_in_ids or not image_ids:
        return ListedSplit(folders=folders, image_ids=image_ids, codes=codes)
    wanted = Wanted(image_ids=image_ids, prefix=folders.prefix)
    try:
        (found,) = find_files(folders.labels, label_names(dataset), [wanted])
    except OSError as error:
        raise DataDirError(
            f"{folders.labels}: expected the folder of the label maps, found none "
            f"({explain(error)}); check --data-dir and the dataset"
        ) from error
    (rows,) = np.nonzero(found)
    if not len(rows):
        raise DataDirError(
            f"{folders.labels}: expected label maps of the {len(image_ids):,} images in "
            f"{folders.images}, such as {folders.label_path(image_ids[0])}, found none; check "
            "labels and label_suffix in the manifest"
        )
    return ListedSplit(
        folders=folders,
        image_ids=ImageIds(image_ids.column[rows]),
        codes=codes[rows],
        unlabelled=len(image_ids) - len(rows),
    )


def has_split(data_dir: Place, dataset: DatasetManifest, split: str) -> bool:
    """Return whether the list of a split, or its folder, is there; SourceUnavailableError."""
    path = split_path(data_dir, dataset, split)
    path = SplitFolders.of(data_dir, dataset, split).images if path is None else path
    if isinstance(path, Path):
        return path.exists()
    try:
        return path.name in names_at(path.parent)
    except FileNotFoundError:
        return False


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


def download_hint(data_dir: Place, dataset: DatasetManifest) -> str:
    """Return how the files of a dataset get into a data dir; empty where there is no such way."""
    if not dataset.sources or not isinstance(data_dir, Path):
        return ""
    return f", or run: vocprep download {dataset.reference} --data-dir {data_dir}"
