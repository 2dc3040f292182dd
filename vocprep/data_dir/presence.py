"""Whether the images and label maps of listed ids are there; the error where they are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from vocprep.data_dir.folders import Codes, FileNames, Wanted, find_files
from vocprep.data_dir.missing_files import SearchedFolder
from vocprep.data_dir.splits import ListedSplit, SplitFolders, download_hint, label_names
from vocprep.errors import DataDirError
from vocprep.manifests import DatasetManifest
from vocprep.storage.places import Place

FolderOf = Callable[[SplitFolders], Place]


def find_listed(
    names: FileNames, folder_of: FolderOf, splits: Sequence[ListedSplit]
) -> list[Codes]:
    """Return the codes of the files of some splits, of which each folder is listed once.

    The files of a folder that cannot be listed are not there.
    """
    codes = [np.zeros(len(each.image_ids), dtype=np.uint8) for each in splits]
    for folder in dict.fromkeys(folder_of(each.folders) for each in splits):
        rows = [row for row, each in enumerate(splits) if folder_of(each.folders) == folder]
        wanted = [
            Wanted(image_ids=splits[row].image_ids, prefix=splits[row].folders.prefix)
            for row in rows
        ]
        try:
            found = find_files(folder, names, wanted)
        except OSError:
            continue
        for row, of_split in zip(rows, found, strict=True):
            codes[row] = of_split
    return codes


def find_images(names: FileNames, splits: Sequence[ListedSplit]) -> list[Codes]:
    """Return the codes of the images of some splits; those that are known are not looked for."""
    unknown = [each for each in splits if each.codes is None]
    found = iter(find_listed(names, lambda folders: folders.images, unknown) if unknown else ())
    return [next(found) if each.codes is None else each.codes for each in splits]


def check_present(
    data_dir: Place,
    dataset: DatasetManifest,
    splits: Sequence[ListedSplit],
    images: tuple[FileNames, Sequence[Codes]],
    skip_option: str | None,
) -> None:
    """Raise DataDirError when the image or label file of a listed id is missing.

    ``skip_option`` is the caller's option that leaves samples without files out.
    """
    labels = label_names(dataset)
    of_labels = find_listed(labels, lambda folders: folders.labels, splits)
    if all(codes.all() for codes in (*images[1], *of_labels)):
        return
    hint = download_hint(data_dir, dataset)
    lacking = sum(
        int(np.sum((one == 0) | (other == 0)))
        for one, other in zip(images[1], of_labels, strict=True)
    )
    skip = f", or leave such images out with {skip_option} {lacking}" if skip_option else ""
    kinds: tuple[tuple[FileNames, Sequence[Codes], FolderOf], ...] = (
        (images[0], images[1], lambda folders: folders.images),
        (labels, of_labels, lambda folders: folders.labels),
    )
    total = sum(len(each.image_ids) for each in splits)
    try:  # where a whole folder is missing, that is the problem
        tops = [
            {place: SearchedFolder.of(names, place) for place in _places(splits, folder_of)}
            for names, _, folder_of in kinds
        ]
    except DataDirError as error:
        raise DataDirError(f"{error}; check --data-dir and the dataset{hint}") from error
    for (_, codes, folder_of), searched in zip(kinds, tops, strict=True):
        missing = list(missing_ids(splits, codes))
        if missing:
            image_id, folders = min(missing, key=lambda each: each[0])
            below, slash, stem = image_id.removeprefix(folders.prefix).rpartition("/")
            folder = searched[folder_of(folders)]
            if slash:
                folder = SearchedFolder.of_any(folder.names, folder.place / below)
            is_listed = dataset.split_files is not None or dataset.split_lists is not None
            words = folder.in_words(stem, len(missing), total, is_listed=is_listed)
            raise DataDirError(f"{words}{hint}{skip}")


def _places(splits: Sequence[ListedSplit], folder_of: FolderOf) -> list[Place]:
    return [*dict.fromkeys(folder_of(each.folders) for each in splits)]


def missing_ids(
    splits: Sequence[ListedSplit], codes: Sequence[Codes]
) -> Iterator[tuple[str, SplitFolders]]:
    """Yield the ids whose files are missing, with the folders of their split."""
    for each, of_split in zip(splits, codes, strict=True):
        for row in np.flatnonzero(of_split == 0).tolist():
            yield each.image_ids[row], each.folders
