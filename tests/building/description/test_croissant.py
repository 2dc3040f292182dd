"""croissant.json, read by Croissant's own reader."""

from __future__ import annotations

import hashlib
import json
import warnings
from typing import Any

import pytest
from builders.versions import Built

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def croissant() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own dependencies
        return pytest.importorskip("mlcroissant")


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
