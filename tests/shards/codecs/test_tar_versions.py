"""Tars of format version 1, whose label maps have another name, beside those of version 2."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import webdataset
from builders.old_versions import as_format_1
from builders.records import assert_same_records, make_record, write_version
from builders.versions import JPEGS, TWO_PER_SHARD, Built, build, write_records
from PIL import Image

from vocprep.building.reuse import StoredEmbeddings
from vocprep.checks.diff import diff
from vocprep.checks.lock import lock, read_lock
from vocprep.checks.verify import verify
from vocprep.errors import ShardError
from vocprep.options import BuildChoices, VerifyOptions
from vocprep.shards.index import read_index
from vocprep.shards.reader import ShardDataset

RECORDS = [make_record(f"id_{number}", (2, 2)) for number in range(4)]


@pytest.fixture
def new(tmp_path: Path) -> Path:
    return write_version(tmp_path / "new", RECORDS, container="webdataset").path


@pytest.fixture
def old(new: Path, tmp_path: Path) -> Path:
    return as_format_1(new, tmp_path / "old")


def member_names(path: Path) -> set[str]:
    with tarfile.open(path) as archive:
        return {member.name.partition(".")[2] for member in archive}


@pytest.mark.slow
@pytest.mark.usefixtures("stock_webdataset")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize("decoder", ["pil", "l8", "l", "rgb", None])
def test_stock_decoders_leave_label_maps_alone(decoder: str | None, new: Path) -> None:
    urls = [str(path) for path in sorted(new.glob("*.tar"))]
    stock = webdataset.WebDataset(urls, shardshuffle=False)
    found = list(stock.decode(decoder) if decoder else stock.decode())
    assert max(record.label_map.max() for record in RECORDS) > 255
    for sample, record in zip(found, RECORDS, strict=True):
        data = sample["label_map.png16"]
        assert isinstance(data, bytes)
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), record.label_map)


def test_new_tars_are_of_version_2(new: Path) -> None:
    assert (read_index(new).format_version, read_index(new).shard_version) == (3, 2)
    assert lock(new).format_version == 2
    assert "label_map.png16" in member_names(next(new.glob("*.tar")))


def test_old_tars_read_as_the_new_ones(old: Path, new: Path) -> None:
    assert "label_map.png" in member_names(next(old.glob("*.tar")))
    dataset = ShardDataset.open(old)
    assert (dataset.index.format_version, dataset.index.shard_version) == (1, 1)
    for name in dataset.shard_names("train"):
        assert_same_records(
            list(dataset.read_shard(name)), list(ShardDataset.open(new).read_shard(name))
        )
    one, other = (list(ShardDataset.open(path).as_webdataset("train")) for path in (old, new))
    for left, right, record in zip(one, other, RECORDS, strict=True):
        assert left.keys() == right.keys()
        for sample in (left, right):
            np.testing.assert_array_equal(sample["label_map.png"], record.label_map)


def test_old_tars_verify_diff_and_lock(old: Path, new: Path, tmp_path: Path) -> None:
    assert verify(old, VerifyOptions(level="content", workers=1)).ok
    assert diff(old, new).same
    assert lock(old, tmp_path / "old.lock").format_version == 1
    lock(new, tmp_path / "new.lock")
    for version, name in ((old, "old"), (new, "new"), (new, "old"), (old, "new")):
        found = verify(version, VerifyOptions(lock=tmp_path / f"{name}.lock", workers=1))
        assert found.ok
        noted = any("are of format version" in note for note in found.notes)
        assert noted == (version.name != name)


def test_locks_state_the_version_of_their_shards(old: Path, tmp_path: Path) -> None:
    lock(old, tmp_path / "lock")
    assert read_lock(tmp_path / "lock").format_version == 1
    assert lock(write_records(tmp_path / "hdf5", RECORDS)).format_version == 1


def test_record_that_states_the_other_version_is_refused(new: Path, tmp_path: Path) -> None:
    mixed = as_format_1(new, tmp_path / "mixed", in_json=2)
    name = next(mixed.glob("*.tar")).name
    with pytest.raises(ShardError, match="format version 2: expected 1 of a shard with label_map"):
        list(ShardDataset.open(mixed).read_shard(name))


def test_embeddings_of_old_tars_are_found(old: Path) -> None:
    dataset = ShardDataset.open(old)
    stored = StoredEmbeddings(old, dataset.version)
    for record in RECORDS:
        found = stored.find(record.image_id, record.image_sha256)
        assert found is not None
        np.testing.assert_array_equal(found, record.embeddings)


CHOICES = BuildChoices(limit_per_split=2)


@pytest.fixture(scope="module")
def built(sample_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    layout = replace(TWO_PER_SHARD, format="webdataset")
    return build(sample_tree, tmp_path_factory.mktemp("tars") / "new", CHOICES, layout)


@pytest.mark.slow
def test_finished_version_of_old_tars_stays_as_it_is(
    built: Built, sample_tree: Path, tmp_path: Path
) -> None:
    old = as_format_1(built.path, tmp_path / "old")
    before = {path.name: path.read_bytes() for path in old.iterdir() if path.is_file()}
    build(sample_tree, old, CHOICES, built.plan.layout)
    assert {name: (old / name).read_bytes() for name in before} == before


@pytest.mark.slow
def test_build_that_succeeds_old_tars_gives_what_a_new_one_gives(
    built: Built, tree: Path, tmp_path: Path
) -> None:
    """One picture has changed: the other split's shard is taken over."""
    old = as_format_1(built.path, tmp_path / "old")
    picture = tree / JPEGS / f"{built.dataset.samples[0].id}.jpg"
    with Image.open(picture) as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(picture)
    build(tree, old, CHOICES, built.plan.layout)
    fresh = build(tree, tmp_path / "fresh", CHOICES, built.plan.layout)
    assert read_index(old).format_version == 3
    for path in fresh.path.glob("*.tar"):
        assert path.read_bytes() == (old / path.name).read_bytes()
    assert verify(old, VerifyOptions(level="content", workers=1)).ok


def test_no_index_of_hdf5_is_of_version_2(tmp_path: Path) -> None:
    path = write_records(tmp_path / "out", RECORDS) / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 2}))
    with pytest.raises(ShardError, match="this version of vocprep reads 1, 3 and 4 of hdf5 shards"):
        read_index(tmp_path / "out")
