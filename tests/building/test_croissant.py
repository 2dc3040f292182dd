"""croissant.json through Croissant's own reader, and the card beside it."""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
from builders.versions import Built, build

from vocprep.options import BuildChoices, Layout


@pytest.fixture(scope="module")
def croissant() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own dependencies
        return pytest.importorskip("mlcroissant")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["crop_hdf5", "native_tar"])
@pytest.mark.filterwarnings("ignore")
def test_description_validates_and_its_records_are_those_of_samples_jsonl(
    name: str, croissant: Any, request: pytest.FixtureRequest
) -> None:
    built: Built = request.getfixturevalue(name)
    dataset = croissant.Dataset(str(built.path / "croissant.json"))
    assert not dataset.metadata.issues.errors
    # No date: the same version has the same bytes whenever it is built.
    assert all("datePublished" in text for text in dataset.metadata.issues.warnings)
    found = list(dataset.records("samples"))
    samples = built.dataset.samples
    assert len(found) == len(samples)
    for line, sample in zip(found, samples, strict=True):
        assert line["samples/record_sha256"].decode() == sample.record_sha256
        assert line["samples/shard"].decode() == sample.shard
        assert line["samples/row"] == sample.row


def test_description_names_every_shard_with_its_digest(crop_tar: Built) -> None:
    value = json.loads((crop_tar.path / "croissant.json").read_text())
    files = {item["name"]: item["sha256"] for item in value["distribution"]}
    assert files.keys() == {"samples.jsonl", *(shard.name for shard in crop_tar.index.shards)}
    for name, sha256 in files.items():
        assert hashlib.sha256((crop_tar.path / name).read_bytes()).hexdigest() == sha256
    assert value["identifier"] == f"urn:sha256:{crop_tar.index.content_id}"


def test_card_tells_identities_counts_terms_and_how_to_load(crop_hdf5: Built) -> None:
    card = (crop_hdf5.path / "README.md").read_text()
    index = crop_hdf5.index
    for text in (index.short_id, index.recipe_id, index.source_id, index.content_id):
        assert text in card
    assert "| train | 10 | 490 |" in card
    assert "Flickr" in card
    assert "vocprep verify" in card
    assert "Missing" not in card
    assert "webdataset" not in card


def test_code_of_the_card_runs(crop_tar: Built) -> None:
    card = (crop_tar.path / "README.md").read_text()
    assert "stock `webdataset` library" in card
    code = card.split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(code.replace("path/to/this/folder", str(crop_tar.path)), names)
    assert len(names["batch"].embeddings)


def test_card_says_how_many_pictures_are_missing(sample_tree: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(sample_tree, tree)
    next((tree / "trainval").iterdir()).write_bytes(b"")
    built = build(tree, tmp_path / "out", BuildChoices(), Layout(), max_failures=1)
    assert "**Missing pictures: 1.**" in (built.path / "README.md").read_text()
