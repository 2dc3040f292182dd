from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records_making import make_record

from vocprep.errors import ShardError
from vocprep.geometry import Geometry
from vocprep.recipe import Recipe, SchemaIdentity, SplitIds
from vocprep.shards.index import (
    DatasetIndex,
    SampleEntry,
    ShardEntry,
    content_id,
    merkle_root,
    read_index,
    read_samples,
    source_id,
    write_index,
)

DIGESTS = st.binary(min_size=32, max_size=32).map(bytes.hex)
LEAVES = st.dictionaries(st.text("abc_#0é", min_size=1, max_size=6), DIGESTS, max_size=12)


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def naive_root(leaves: dict[str, str]) -> str:
    """Split at the largest power of two below the count, and recurse: RFC 6962's way to say it."""

    def root(nodes: list[bytes]) -> bytes:
        if len(nodes) == 1:
            return nodes[0]
        half = 1
        while half * 2 < len(nodes):
            half *= 2
        return sha(b"\x01" + root(nodes[:half]) + root(nodes[half:]))

    if not leaves:
        return hashlib.sha256().hexdigest()
    nodes = [
        sha(b"\x00" + name.encode() + b"\x00" + bytes.fromhex(leaves[name]))
        for name in sorted(leaves)
    ]
    return root(nodes).hex()


@given(LEAVES)
def test_merkle_root_is_that_of_the_recursive_definition(leaves: dict[str, str]) -> None:
    assert merkle_root(leaves.items()) == naive_root(leaves)


@given(LEAVES, st.randoms(use_true_random=False))
def test_merkle_root_does_not_depend_on_the_order_of_the_leaves(
    leaves: dict[str, str], random: Any
) -> None:
    shuffled = list(leaves.items())
    random.shuffle(shuffled)
    assert merkle_root(shuffled) == merkle_root(leaves.items())


@given(LEAVES.filter(bool), st.data())
def test_merkle_root_changes_with_every_leaf(leaves: dict[str, str], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(leaves)))
    flipped = bytearray.fromhex(leaves[name])
    flipped[data.draw(st.integers(0, 31))] ^= 1 << data.draw(st.integers(0, 7))
    without = {key: digest for key, digest in leaves.items() if key != name}
    roots = {
        merkle_root(leaves.items()),
        merkle_root((leaves | {name: flipped.hex()}).items()),
        merkle_root(without.items()),
        merkle_root((without | {name + "x": leaves[name]}).items()),
        merkle_root((leaves | {name + "x": leaves[name]}).items()),
    }
    assert len(roots) == 5


def test_two_digests_that_change_places_change_the_root() -> None:
    one, other = "00" * 32, "11" * 32
    assert merkle_root([("a", one), ("b", other)]) != merkle_root([("a", other), ("b", one)])


def made_index() -> tuple[DatasetIndex, list[SampleEntry]]:
    records = [make_record("a"), make_record("a#flip"), make_record("b", (1, 1))]
    name = "train-00000-of-00001.h5"
    samples = [SampleEntry.of(record, name, row) for row, record in enumerate(records)]
    recipe = Recipe(
        dataset="made",
        schema=SchemaIdentity(name="context460", sha256="12" * 32),
        splits={"train": SplitIds.of(["a", "b"])},
        backbone="resnet32-cifar100",
        weights_sha256="34" * 32,
        geometry=Geometry(geometry="native", edge="pad"),
        views=("identity", "flip"),
    )
    index = DatasetIndex(
        recipe_id=recipe.recipe_id,
        source_id=source_id(samples),
        content_id=content_id(samples),
        container="hdf5",
        samples_per_shard=500,
        recipe=recipe,
        numerics_class={"torch": "2"},
        weights="made",
        shards=(
            ShardEntry(name=name, split="train", records=3, patches=13, bytes=9, sha256="56" * 32),
        ),
        statistics={"splits": {}},
        versions={"vocprep": "0"},
    )
    return index, samples


def test_index_and_samples_come_back_as_they_were(tmp_path: Path) -> None:
    index, samples = made_index()
    write_index(tmp_path, index, samples)
    assert read_index(tmp_path) == index
    assert read_index(tmp_path).recipe == index.recipe
    assert read_samples(tmp_path) == samples


def test_files_of_the_index_hold_the_documented_keys(tmp_path: Path) -> None:
    write_index(tmp_path, *made_index())
    lines = (tmp_path / "samples.jsonl").read_text().splitlines()
    assert len(lines) == 3
    assert json.loads(lines[0]).keys() >= {"id", "split", "shard", "row", "grid", "status"}
    value = json.loads((tmp_path / "dataset.json").read_text())
    assert value["format"] == "vocprep-dataset"
    assert value["format_version"] == 1
    assert {"recipe_id", "source_id", "content_id", "numerics_class", "shards"} <= value.keys()


def test_dataset_json_is_written_last(tmp_path: Path) -> None:
    """Its presence says that all is there: it must not come when the samples cannot."""
    (tmp_path / "samples.jsonl").mkdir()
    with pytest.raises(OSError, match=r"samples\.jsonl"):
        write_index(tmp_path, *made_index())
    assert [path.name for path in tmp_path.iterdir()] == ["samples.jsonl"]


def test_source_id_has_one_leaf_a_picture_and_content_id_one_a_record() -> None:
    _, samples = made_index()
    assert source_id(samples) == naive_root(
        {
            sample.id: hashlib.sha256(
                f"{sample.image_sha256}\0{sample.label_sha256}".encode()
            ).hexdigest()
            for sample in samples
            if "#" not in sample.id
        }
    )
    assert content_id(samples) == naive_root(
        {sample.id: sample.record_sha256 for sample in samples}
    )


def test_short_id_names_the_recipe_and_the_content() -> None:
    index, _ = made_index()
    expected = f"context460-native-pad-resnet32-fp32@{index.content_id[:12]}"
    assert index.short_id == expected


def assert_refused(read: Callable[[Path], Any], folder: Path, *said: str) -> None:
    with pytest.raises(ShardError) as caught:
        read(folder)
    for text in (str(folder), *said):
        assert text in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"recipe_id": "00" * 32}, "edited"),
        ({"format_version": 2}, "format version 2"),
        ({"format_version": None}, "format version None"),
        ({"format": "other"}, "format"),
        ({"container": "zip"}, "container"),
        ({"shards": [{"name": "x"}]}, "shards"),
        ({"recipe": {}}, "recipe"),
        ({"recipe": 5}, "recipe"),
        ({"more": 1}, "more"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_edited_dataset_json_is_a_shard_error(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    write_index(tmp_path, *made_index())
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert_refused(read_index, tmp_path, "dataset.json", said)


@pytest.mark.parametrize(
    ("field", "value"),
    [("dataset", "other"), ("embedding_dtype", "float32"), ("weights_sha256", "35" * 32)],
)
def test_recipe_that_does_not_have_its_id_is_a_shard_error(
    field: str, value: str, tmp_path: Path
) -> None:
    write_index(tmp_path, *made_index())
    path = tmp_path / "dataset.json"
    content = json.loads(path.read_text())
    content["recipe"][field] = value
    path.write_text(json.dumps(content))
    assert_refused(read_index, tmp_path, "dataset.json", "recipe_id")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("precision", "fp8"),
        ("views", ["flip"]),
        ("geometry", {"geometry": "x"}),
        ("normalisation", {"mean": [float("nan")] * 3, "std": [1.0] * 3}),
        ("new", 1),
    ],
)
def test_recipe_of_a_later_version_is_a_shard_error(field: str, value: Any, tmp_path: Path) -> None:
    write_index(tmp_path, *made_index())
    path = tmp_path / "dataset.json"
    content = json.loads(path.read_text())
    content["recipe"][field] = value
    path.write_text(json.dumps(content))
    assert_refused(read_index, tmp_path, "dataset.json", "recipe")


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b"\xff\xfe\x00", b'{"format_version": 1}']
)
def test_dataset_json_that_is_none_is_a_shard_error(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_bytes(data)
    assert_refused(read_index, tmp_path, "dataset.json")


def test_folder_without_a_dataset_is_a_shard_error_that_says_what_to_run(tmp_path: Path) -> None:
    assert_refused(read_index, tmp_path, "dataset.json", "build-shards")
    assert_refused(read_index, tmp_path / "none", "dataset.json", "build-shards")


@pytest.mark.parametrize(
    "line",
    ["", "{", "[]", "\udcff", '{"id": "a"}', '{"id": 5}'],
    ids=["empty", "broken", "list", "no UTF-8", "fields missing", "wrong type"],
)
def test_bad_line_of_samples_is_a_shard_error_with_its_number(line: str, tmp_path: Path) -> None:
    write_index(tmp_path, *made_index())
    path = tmp_path / "samples.jsonl"
    lines = path.read_text().splitlines()
    lines[1] = line
    path.write_bytes("".join(f"{text}\n" for text in lines).encode(errors="surrogateescape"))
    assert_refused(read_samples, tmp_path, "samples.jsonl", "line 2")


def test_missing_samples_are_a_shard_error(tmp_path: Path) -> None:
    assert_refused(read_samples, tmp_path, "samples.jsonl")
