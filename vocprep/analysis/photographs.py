"""The photographs that a version was made of, found again in the data dir of its build."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vocprep.data_dir.splits import SplitFolders, find_image
from vocprep.errors import DataError, UsageError
from vocprep.features.image import decode_picture, read_image_file
from vocprep.files.ids import image_id_of, is_safe_id, view_suffix
from vocprep.files.writing import sha256_hex
from vocprep.manifests import DatasetManifest, load_recorded_dataset
from vocprep.placement import place_view
from vocprep.recipe import Recipe
from vocprep.shards.reader import ShardDataset
from vocprep.validation import printable


class Photographs:
    """The photographs of a version's records, placed as the build placed them."""

    def __init__(self, data_dir: Path, dataset: DatasetManifest, recipe: Recipe) -> None:
        self._data_dir, self._dataset, self._recipe = data_dir, dataset, recipe

    @classmethod
    def of(
        cls, dataset: ShardDataset, data_dir: Path, manifest: str | Path | None = None
    ) -> Photographs:
        """Return the photographs of a version in the data dir of its build.

        ``manifest`` is the name or TOML file of the dataset; that of the recipe when None. Raises
        UsageError when there is no folder of them.
        """
        recipe = dataset.index.recipe
        given = None if manifest is None else str(manifest)
        found = load_recorded_dataset(recipe.dataset, given, data_dir)
        folders = [SplitFolders.of(data_dir, found, split).images for split in recipe.splits]
        if not any(isinstance(folder, Path) and folder.is_dir() for folder in folders):
            raise UsageError(
                f"{folders[0]}: expected the images that the shards were built from, found no such "
                "folder; give the data dir of the build"
            )
        return cls(data_dir, found, recipe)

    def read(self, record_id: str, image_sha256: str) -> NDArray[np.uint8]:
        """Return a record's photograph uint8 [32·ny, 32·nx, 3] in the view of the record.

        ``record_id`` and ``image_sha256`` are those of samples.jsonl. Raises ImageDecodeError when
        the file cannot be read, DataError when it is not the one that the record was made of, or
        when the id could lead to another folder.
        """
        image_id = image_id_of(record_id)
        if not is_safe_id(image_id):
            raise DataError(
                f"record {printable(record_id)!r}: its id is no name of an image file, so that "
                "there is no photograph to show; build from files with other names"
            )
        path = find_image(self._data_dir, self._dataset, image_id)
        data = read_image_file(path)
        if (found := sha256_hex(data)) != image_sha256:
            raise DataError(
                f"{path}: expected the image that the record was made of, of sha256 "
                f"{image_sha256[:12]}…, found {found[:12]}…; give the data dir of the build"
            )
        pixels, crops = decode_picture(data, str(path)), self._recipe.crops
        boxes = {} if crops is None else dict(crops.boxes(image_id, *pixels.shape[:2]))
        box = boxes.get(view_suffix(record_id).removeprefix("#"))
        return place_view(pixels, record_id, self._recipe.geometry, box)
