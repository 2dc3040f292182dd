"""The README.md of a version: its numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders.versions import Built, build

from vocprep.options import BuildChoices

pytestmark = pytest.mark.slow


def test_card_lists_the_classes_by_their_names(crop_hdf5: Built) -> None:
    text = (crop_hdf5.path / "README.md").read_text()
    pixels = crop_hdf5.index.statistics["label_pixels"]
    largest = max(pixels, key=lambda label: (pixels[label], -int(label)))
    assert f"| {largest} | {crop_hdf5.plan.label_space.names[int(largest)]} |" in text


def test_card_points_to_the_folder_only_by_a_placeholder(crop_hdf5: Built) -> None:
    assert str(Path(crop_hdf5.path)) not in (crop_hdf5.path / "README.md").read_text()


def test_card_tells_identities_counts_terms_and_how_to_load(crop_hdf5: Built) -> None:
    card = (crop_hdf5.path / "README.md").read_text()
    index = crop_hdf5.index
    for text in (index.short_id, index.recipe_id, index.source_id, index.content_id):
        assert text in card
    assert "| train | 10 | 490 |" in card
    assert "Flickr" in card
    assert "vocprep verify" in card
    assert "Missing" not in card
    assert "import h5py" in card
    assert "webdataset" not in card


def test_card_says_how_many_pictures_are_missing(tree: Path, tmp_path: Path) -> None:
    min((tree / "trainval").iterdir()).write_bytes(b"")
    built = build(tree, tmp_path / "out", BuildChoices(limit_per_split=1), max_failures=1)
    assert "**Missing pictures: 1.**" in (built.path / "README.md").read_text()
