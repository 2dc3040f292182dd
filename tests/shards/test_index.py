"""dataset.json and samples.jsonl: written, read back, and refused when edited."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders.records import make_record, write_version
from builders.versions import write_records

from vocprep.building.output.publish import write_dataset
from vocprep.errors import ShardError, UsageError
from vocprep.files.writing import canonical_json, sha256_hex
from vocprep.geometry import Geometry
from vocprep.labels.label_space import load_label_space
from vocprep.recipe import LabelSpaceId, Recipe, SplitIds
from vocprep.shards.index import DatasetIndex, read_index
from vocprep.shards.reader import ShardDataset
from vocprep.shards.samples import SampleEntry, parse_lines
from vocprep.views import Crops


def make_index(out: Path) -> DatasetIndex:
    recipe = Recipe(
        dataset="made",
        schema=LabelSpaceId(name="context460", sha256=load_label_space("context460").sha256),
        splits={"train": SplitIds.of(["a", "b"])},
        backbone="resnet32-cifar100",
        weights_sha256="34" * 32,
        geometry=Geometry(geometry="native", edge="pad"),
        views=("identity", "flip"),
    )
    records = [make_record("a"), make_record("a#flip"), make_record("b", (1, 1))]
    return write_dataset(out, recipe, {"train": records})


def make_cropped(out: Path) -> DatasetIndex:
    """A version of two images in their plain view and two crops."""
    records = [make_record(image_id + view) for image_id in "ab" for view in VIEWS]
    write_records(out, records, crops=CROPS)
    return read_index(out)


VIEWS, CROPS = ("", "#crop1", "#crop2"), Crops(count=2, seed=0)


def test_index_of_crops_holds_all_views_of_each_image(tmp_path: Path) -> None:
    index = make_cropped(tmp_path)
    assert index.format_version == 4
    assert [(each.records, each.span and each.span.images) for each in index.shards] == [(6, 2)]
    found = ShardDataset.open(tmp_path).read_shard(index.shards[0].name, all_views=True)
    assert [record.image_id for record in found] == [f"{a}{view}" for a in "ab" for view in VIEWS]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format_version": 3}, "recipe.crops: expected none before format version 4"),
        ({"crops": {"count": 2, "seed": 0}}, "crops.rule: no value and 1"),
        ({"crops": {"count": 100, "seed": 0, "rule": 1}}, "crops.count 100: expected at most 99"),
        ({"crops": {"count": 2, "seed": -1, "rule": 1}}, "crops.seed -1: expected 0 or more"),
        ({"crops": {"count": 2, "seed": 0, "rule": 2}}, "crops.rule 2: expected 1"),
        ({"crops": {"count": 2, "seed": 0, "rule": 1, "x": 1}}, "crops.x: no field of this name"),
        ({"crops": None}, "recipe.crops: expected some in format version 4"),
        ({"views": ["identity", "crop1"]}, "views[1] 'crop1': expected one of identity, flip"),
        ({"crops": {"count": 3, "seed": 0, "rule": 1}}, "6, to be 4 times as many"),
        ({"geometry": {"geometry": "native", "edge": "drop"}}, "expected crop or squash"),
    ],
)
def test_index_of_crops_that_contradicts_itself_is_refused(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    value = make_cropped(tmp_path).model_dump(mode="json")
    (value if "format_version" in change else value["recipe"]).update(change)
    write_sealed(tmp_path, value)
    with pytest.raises(ShardError, match=re.escape(said)):
        read_index(tmp_path)


def write_sealed(folder: Path, value: dict[str, Any]) -> None:
    """Write an index as whoever made it would have."""
    value["recipe_id"] = sha256_hex(canonical_json(value["recipe"]))
    del value["index_sha256"]
    value["index_sha256"] = sha256_hex(canonical_json(value))
    (folder / "dataset.json").write_text(json.dumps(value))


def test_pictures_that_are_named_as_crops_are_refused_by_name(tmp_path: Path) -> None:
    """As versions of before crops may hold them."""
    value = make_cropped(tmp_path).model_dump(mode="json")
    del value["recipe"]["crops"]
    write_sealed(tmp_path, {**value, "format_version": 3})
    with pytest.raises(ShardError, match="such as 'a#crop1': expected none that ends as those of"):
        list(ShardDataset.open(tmp_path).read_shard(value["shards"][0]["name"]))


def test_records_that_lack_a_view_are_not_written(tmp_path: Path) -> None:
    records = [make_record(record_id) for record_id in ("a", "a#crop1", "b")]
    for crops in (CROPS, None):
        with pytest.raises(UsageError, match="image a in split train: expected those of the views"):
            write_records(tmp_path / "out", records, crops=crops)
        assert not (tmp_path / "out" / "dataset.json").exists()


def test_index_comes_back_as_it_was(tmp_path: Path) -> None:
    index = make_index(tmp_path)
    assert read_index(tmp_path) == index
    assert read_index(tmp_path).recipe == index.recipe


def test_files_of_the_index_hold_the_documented_keys(tmp_path: Path) -> None:
    make_index(tmp_path)
    lines = (tmp_path / "samples.jsonl").read_text().splitlines()
    assert len(lines) == 3
    assert json.loads(lines[0]).keys() >= {"id", "split", "shard", "row", "grid", "status"}
    value = json.loads((tmp_path / "dataset.json").read_text())
    assert value["format"] == "vocprep-dataset"
    assert value["format_version"] == 3
    assert value["shards"][0]["span"] == {
        "images": 2,
        "first_id": "a",
        "last_id": "b",
        "ids_sha256": hashlib.sha256(b"a\na#flip\nb\n").hexdigest(),
    }
    assert {"recipe_id", "source_id", "content_id", "numerics_class", "shards"} <= value.keys()
    files = {entry["name"]: entry for entry in value["files"]}
    assert files.keys() == {"samples.jsonl", "labels.json", "README.md", "croissant.json"}
    for name, entry in files.items():
        data = (tmp_path / name).read_bytes()
        assert entry["sha256"] == hashlib.sha256(data).hexdigest()
        assert entry["bytes"] == len(data)


def test_index_carries_the_digest_of_all_else_it_says(tmp_path: Path) -> None:
    make_index(tmp_path)
    value = json.loads((tmp_path / "dataset.json").read_text())
    own = value.pop("index_sha256")
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    assert own == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    "change",
    [
        {"weights": "others"},
        {"statistics": {}},
        {"versions": {}},
        {"quarantined": 1},
    ],
    ids=str,
)
def test_edit_that_leaves_the_index_readable_is_found_by_its_digest(
    change: dict[str, Any], tmp_path: Path
) -> None:
    make_index(tmp_path)
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert_refused(read_index, tmp_path, "dataset.json", "altered")


@pytest.mark.parametrize(
    "change",
    [
        {"statistics": {"seconds": float("nan")}},
        {"statistics": {"seconds": float("inf")}},
        {"quarantined": "0"},
        {"quarantined": 0.0},
        {"samples_per_shard": "500"},
        {"weights": "\ud800"},
        {"format_version": True},
    ],
    ids=str,
)
def test_values_of_another_kind_are_no_index(change: dict[str, Any], tmp_path: Path) -> None:
    make_index(tmp_path)
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert_refused(read_index, tmp_path, "dataset.json", "not a dataset index")


def test_short_id_names_the_recipe_and_the_content(tmp_path: Path) -> None:
    index = make_index(tmp_path)
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
        (
            {"format_version": 2},
            "format version 2: this version of vocprep reads 1, 3 and 4 of",
        ),
        (
            {"format_version": 5},
            "version 5: this version of vocprep reads 1, 2, 3 and 4; use",
        ),
        ({"format_version": 4}, "recipe.crops: expected some in format version 4"),
        ({"format_version": 1}, "shards[0].span: expected none in format version 1"),
        ({"format_version": None}, "format version None"),
        ({"format": "other"}, "format"),
        ({"container": "zip"}, "container 'zip': expected one of hdf5, webdataset"),
        ({"shards": [{"name": "x"}]}, "shards"),
        ({"recipe": {}}, "recipe"),
        ({"recipe": 5}, "recipe 5: expected a table"),
        ({"more": 1}, "more: no field of this name is known"),
        ({"quarantined": "none"}, "quarantined 'none': expected a whole number"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_edited_dataset_json_is_a_shard_error(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    make_index(tmp_path)
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
    make_index(tmp_path)
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
    make_index(tmp_path)
    path = tmp_path / "dataset.json"
    content = json.loads(path.read_text())
    content["recipe"][field] = value
    path.write_text(json.dumps(content))
    assert_refused(read_index, tmp_path, "dataset.json", "recipe")


def test_recipe_without_a_field_is_a_shard_error(tmp_path: Path) -> None:
    """It is of another version: a field left out has a default, and the recipe another id."""
    make_index(tmp_path)
    path = tmp_path / "dataset.json"
    content = json.loads(path.read_text())
    del content["recipe"]["precision"]
    path.write_text(json.dumps(content))
    said = "not a recipe that this version can read: precision: no value and 'fp32'"
    assert_refused(read_index, tmp_path, "dataset.json", said)


def test_index_is_written_with_its_recipe_as_the_recipe_itself_is(tmp_path: Path) -> None:
    index = make_index(tmp_path)
    written = json.loads((tmp_path / "dataset.json").read_text())["recipe"]
    assert json.dumps(written) == json.dumps(index.recipe.to_json())


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b"\xff\xfe\x00", b'{"format_version": 1}']
)
def test_dataset_json_that_is_none_is_a_shard_error(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_bytes(data)
    assert_refused(read_index, tmp_path, "dataset.json")


def test_dataset_json_without_a_table_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text("[7]")
    with pytest.raises(ShardError, match="not a dataset index: expected a table, found a list;"):
        read_index(tmp_path)


def test_folder_without_a_dataset_is_a_shard_error_that_says_what_to_run(tmp_path: Path) -> None:
    assert_refused(read_index, tmp_path, "build-shards", "found an empty folder; check the path")
    assert_refused(read_index, tmp_path / "none", "found nothing; check the path")
    (tmp_path / ".tmp-build").mkdir()
    assert_refused(read_index, tmp_path, "found an unfinished build; run the same vocprep build")


@pytest.mark.parametrize("state", [".tmp-replacing", ".tmp-replaced"])
def test_version_that_a_build_exchanges_is_waited_for(
    state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = make_index(tmp_path)
    for name in (state, ".tmp-build"):
        (tmp_path / name).mkdir()
    aside = tmp_path / state / "dataset.json"
    (tmp_path / "dataset.json").rename(aside)
    waits = []

    def exchange(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            aside.rename(tmp_path / "dataset.json")
            aside.parent.rmdir()

    monkeypatch.setattr("vocprep.shards.index.time.sleep", exchange)
    assert read_index(tmp_path) == index
    assert len(waits) == 3


def test_version_whose_exchange_does_not_end_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vocprep.shards.index._MOST_WAITING", 0.02)
    for name in (".tmp-replaced", ".tmp-build"):
        (tmp_path / name).mkdir()
    said = "is being replaced; open it again when that has finished"
    assert_refused(read_index, tmp_path, said, "where nothing writes there any more, run the same")


def read_samples(folder: Path) -> None:
    path = folder / "samples.jsonl"
    with path.open("rb") as lines:
        list(parse_lines(lines, SampleEntry, str(path)))


def with_second_line(folder: Path, line: str) -> None:
    path = folder / "samples.jsonl"
    lines = path.read_text().splitlines()
    lines[1] = line
    path.write_bytes("".join(f"{text}\n" for text in lines).encode(errors="surrogateescape"))


@pytest.mark.parametrize(
    "line",
    [
        *("", "{", "[]", "\udcff", "[" * 100_000, "x" * 100_000, '{"id": "a"}', '{"id": 5}'),
    ],
    ids=str.__len__,
)
def test_bad_line_of_samples_is_a_shard_error_with_its_number(line: str, tmp_path: Path) -> None:
    make_index(tmp_path)
    with_second_line(tmp_path, line)
    assert_refused(read_samples, tmp_path, "samples.jsonl", "line 2")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("row", "1"),
        ("row", 1.0),
        ("row", -1),
        ("row", 10**30),
        ("row", True),
        ("grid", [1, 10**30]),
        ("grid", [1.0, 1]),
        ("grid", [0, 1]),
        ("id", ""),
        ("id", "x" * 300),
        ("record_sha256", "zz" * 32),
        ("targets_sha256", "00"),
        ("embeddings_sha256", None),
    ],
)
def test_value_of_another_kind_in_a_line_is_a_shard_error(
    field: str, value: Any, tmp_path: Path
) -> None:
    make_index(tmp_path)
    line = json.loads((tmp_path / "samples.jsonl").read_text().splitlines()[1])
    with_second_line(tmp_path, json.dumps({**line, field: value}))
    assert_refused(read_samples, tmp_path, "samples.jsonl", "line 2", field)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        ".hidden",
        "a/b.h5",
        "../x.h5",
        "/etc/passwd",
        "a\0.h5",
        "a\n.h5",
        "dataset.json",
        "b\\c",
    ],
)
@pytest.mark.parametrize("kind", ["shards", "files"])
def test_file_name_that_is_no_plain_name_of_the_folder_is_refused(
    kind: str, name: str, tmp_path: Path
) -> None:
    value = made_value(tmp_path)
    value[kind][0]["name"] = name
    assert_refused(read_resealed(value), tmp_path, "dataset.json", f"{kind}[0].name")


def test_file_that_is_listed_twice_is_refused(tmp_path: Path) -> None:
    value = made_value(tmp_path)
    value["files"][0]["name"] = value["shards"][0]["name"]
    assert_refused(read_resealed(value), tmp_path, "dataset.json", "is listed twice")


@pytest.mark.parametrize("number", [10**30, -1, 1.0, "1", None, True])
@pytest.mark.parametrize("field", ["bytes", "records", "patches"])
def test_count_that_is_none_is_refused(field: str, number: Any, tmp_path: Path) -> None:
    value = made_value(tmp_path)
    value["shards"][0][field] = number
    assert_refused(read_resealed(value), tmp_path, "dataset.json", f"shards[0].{field}")


@pytest.mark.parametrize("digest", ["", "zz" * 32, "00" * 31, "AA" * 32, 5])
def test_digest_that_is_none_is_refused(digest: Any, tmp_path: Path) -> None:
    value = made_value(tmp_path)
    value["shards"][0]["sha256"] = digest
    assert_refused(read_resealed(value), tmp_path, "dataset.json", "shards[0].sha256")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"images": 4}, "shards[0].span: images 4: expected at most its 2 records"),
        ({"images": -1}, "shards[0].span.images -1: expected 0 or more"),
        ({"images": None}, "shards[0].span.images None: expected a whole number"),
        ({"first_id": "c"}, "span: first_id 'c' and last_id 'b': expected the ends of 2 different"),
        ({"first_id": "b"}, "span: first_id 'b' and last_id 'b': expected the ends of 2 different"),
        ({"last_id": "c"}, "shards[1].span: first_id 'c': expected one after 'c', the last of the"),
        ({"last_id": "cc"}, "shards[1].span: first_id 'c': expected one after 'cc', the last of"),
        ({"first_id": ""}, "shards[0].span.first_id '': expected at least 1"),
        ({"last_id": "x" * 256}, "shards[0].span.last_id"),
        ({"ids_sha256": "00"}, "shards[0].span.ids_sha256 '00'"),
        ({"rows": 1}, "shards[0].span.rows: no field of this name is known"),
    ],
    ids=str,
)
def test_span_that_cannot_be_is_refused(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    value = three_shards(tmp_path)
    value["shards"][0]["span"] |= change
    assert_refused(read_resealed(value), tmp_path, "dataset.json", said)


def test_spans_out_of_order_are_refused(tmp_path: Path) -> None:
    value = three_shards(tmp_path)
    value["shards"].reverse()
    said = "contradicts itself: shards[1].span: first_id 'c': expected one after 'e'"
    assert_refused(read_resealed(value), tmp_path, said)


@pytest.mark.parametrize("change", [{}, {"span": None}])
def test_shard_without_a_span_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    value = three_shards(tmp_path)
    del value["shards"][2]["span"]
    value["shards"][2] |= change
    said = "shards[2].span: expected one since format version 3"
    assert_refused(read_resealed(value), tmp_path, said)


def test_counts_that_do_not_add_up_are_refused(tmp_path: Path) -> None:
    value = three_shards(tmp_path)
    refused = {
        "shards[1].split 'test': expected one of the recipe": ("shards", 1, "split", "test"),
        "statistics.splits.train.records: expected 6, the sum over its shards, found 5": (
            *("shards", 2, "records", 2),
        ),
        "statistics.splits.train.patches: expected 33": ("shards", 0, "patches", 15),
        "statistics.splits.train.records: expected 5, the sum over its shards, found 7": (
            *("statistics", "splits", "train", "records", 7),
        ),
        "statistics.splits.train.records: expected 5, the sum over its shards, found None": (
            *("statistics", "splits", "train", []),
        ),
        "statistics.splits.val.records: expected 0": (
            *("statistics", "splits", "val", {"records": 9}),
        ),
    }
    for said, (*path, last, new) in refused.items():
        changed = json.loads(json.dumps(value))
        place = changed
        for step in path:
            place = place[step]
        place[last] = new
        if last == "records" and path[0] == "shards":
            place["span"]["last_id"] = "f"
        assert_refused(read_resealed(changed), tmp_path, "dataset.json: contradicts itself", said)


def test_spans_of_more_images_than_the_recipe_has_are_refused(tmp_path: Path) -> None:
    value = three_shards(tmp_path)
    value["recipe"]["splits"]["train"]["count"] = 4
    value["recipe_id"] = Recipe.from_json(value["recipe"]).recipe_id
    said = "spans of split train: expected at most the 4 images of the recipe, found 5"
    assert_refused(read_resealed(value), tmp_path, said)


def three_shards(folder: Path) -> dict[str, Any]:
    """The index of records a, b; c, d; e."""
    write_version(folder, [make_record(image_id) for image_id in "abcde"])
    value: dict[str, Any] = json.loads((folder / "dataset.json").read_text())
    return value


def made_value(folder: Path) -> dict[str, Any]:
    make_index(folder)
    value: dict[str, Any] = json.loads((folder / "dataset.json").read_text())
    return value


def read_resealed(value: dict[str, Any]) -> Callable[[Path], Any]:
    """Write an edited index with its right digest, and read it."""

    def read(folder: Path) -> DatasetIndex:
        others = {name: field for name, field in value.items() if name != "index_sha256"}
        text = json.dumps(others, sort_keys=True, separators=(",", ":"))
        own = hashlib.sha256(text.encode()).hexdigest()
        (folder / "dataset.json").write_text(json.dumps({**others, "index_sha256": own}))
        return read_index(folder)

    return read
