"""Photographs are those that records were made of, and nothing outside their folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from builders.versions import JPEGS, Built
from PIL import Image

from vocprep.analysis.photographs import Photographs
from vocprep.errors import DataError, ImageDecodeError, UsageError
from vocprep.files.writing import sha256_hex

pytestmark = pytest.mark.slow


def test_photographs_are_placed_as_the_build_placed_them(
    native_hdf5: Built, sample_tree: Path
) -> None:
    photographs = Photographs.of(native_hdf5.dataset, sample_tree)
    for sample in native_hdf5.dataset.samples:
        found = photographs.read(sample.id, sample.image_sha256)
        name = sample.id.removesuffix("#flip")
        expected = np.asarray(Image.open(sample_tree / JPEGS / f"{name}.jpg").convert("RGB"))
        if name != sample.id:
            expected = expected[:, ::-1]
        height, width = (32 * side for side in sample.grid)
        assert found.shape == (height, width, 3)
        inner = found[:, -expected.shape[1] :] if name != sample.id else found
        part = inner[: expected.shape[0], : expected.shape[1]].astype(int)
        assert abs(part - expected[: part.shape[0], : part.shape[1]]).max() <= 3  # decoders round


def test_another_file_is_refused(crop_hdf5: Built, tree: Path) -> None:
    photographs = Photographs.of(crop_hdf5.dataset, tree)
    one, other = crop_hdf5.dataset.samples[:2]
    (tree / JPEGS / f"{one.id}.jpg").unlink()
    with pytest.raises(ImageDecodeError, match="cannot be read"):
        photographs.read(one.id, one.image_sha256)
    shutil.copy(tree / JPEGS / f"{other.id}.jpg", tree / JPEGS / f"{one.id}.jpg")
    with pytest.raises(DataError, match="expected the image that the record was made of"):
        photographs.read(one.id, one.image_sha256)
    shutil.rmtree(tree / JPEGS)
    with pytest.raises(UsageError, match="found no such folder"):
        Photographs.of(crop_hdf5.dataset, tree)


@pytest.mark.parametrize("record_id", ["../secret", "/etc/secret", "a/../b", "..", "", "x\0y"])
def test_an_id_leads_to_no_other_folder(crop_hdf5: Built, tree: Path, record_id: str) -> None:
    photographs = Photographs.of(crop_hdf5.dataset, tree)
    secret = (tree / JPEGS).parent / "secret.jpg"
    jpeg = next((tree / JPEGS).glob("*.jpg"))
    shutil.copy(jpeg, secret)
    with pytest.raises(DataError, match="its id is no name of an image file"):
        photographs.read(record_id, sha256_hex(jpeg.read_bytes()))
