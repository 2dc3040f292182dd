"""Comparing two dataset versions: recipes, samples, labels, embeddings."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from builders.records import make_record
from builders.versions import Built, first_jpeg, write_records
from hypothesis import given, settings
from hypothesis import strategies as st

from vocprep.building.output.publish import write_dataset
from vocprep.checks.diff import VersionDiff, diff
from vocprep.errors import ShardError
from vocprep.labels.label_space import load_label_space
from vocprep.labels.png import encode_png
from vocprep.labels.targets import make_targets
from vocprep.options import Layout
from vocprep.recipe import LabelSpaceId, Recipe, SplitIds
from vocprep.shards.codecs.hdf5 import Hdf5Shard
from vocprep.shards.record import Record


def relabelled(record: Record, changes: Mapping[tuple[int, int], int]) -> Record:
    """The record with other labels at some pixels, and the targets that follow."""
    label_map = record.label_map.copy()
    for place, label in changes.items():
        label_map[place] = label
    targets = make_targets(label_map, 0)
    return replace(
        record,
        label_png=encode_png(label_map),
        slot_labels=targets.slot_labels,
        slot_pixels=targets.slot_pixels,
        label_count=targets.label_count,
        slot_planes=targets.slot_planes,
        label_sha256="11" * 32,
    )


RECORDS = [make_record(name) for name in "abcd"]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_records(tmp_path / "base", RECORDS)


def diff_from(base: Path, records: list[Record], **recipe: object) -> VersionDiff:
    return diff(base, write_records(base.parent / "other", records, **recipe))


def test_version_does_not_differ_from_its_copy(base: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "copy")
    found = diff(base, tmp_path / "copy")
    assert found.same
    assert (found.samples, found.class_changes, found.embeddings) == ((), (), None)


def test_containers_and_cuts_are_no_difference(quarantined: Built, quarantined_tar: Built) -> None:
    assert diff(quarantined.path, quarantined_tar.path).same


def test_changed_labels_are_counted_by_what_they_were_and_became(base: Path) -> None:
    before = RECORDS[1].label_map
    places = {(0, 0): 459, (0, 1): 459, (40, 40): 15, (41, 41): 0}
    changes = {place: label for place, label in places.items() if before[place] != label}
    found = diff_from(base, [RECORDS[0], relabelled(RECORDS[1], changes), *RECORDS[2:]])
    assert not found.same
    (sample,) = found.samples
    assert (sample.id, set(sample.parts)) == ("b", {"label", "targets"})
    assert sample.changed_pixels == len(changes)
    assert (sample.largest_deviation, sample.smallest_cosine) == (None, None)
    naive: dict[tuple[int, int], int] = {}
    for place, label in changes.items():
        pair = int(before[place]), label
        naive[pair] = naive.get(pair, 0) + 1
    assert {(f.before, f.after): f.pixels for f in found.class_changes} == naive
    pixels = [flip.pixels for flip in found.class_changes]
    assert pixels == sorted(pixels, reverse=True)


def test_changed_embeddings_are_measured(base: Path) -> None:
    embeddings = RECORDS[2].embeddings.copy()
    embeddings[3, 7] += 2
    found = diff_from(base, [*RECORDS[:2], replace(RECORDS[2], embeddings=embeddings), RECORDS[3]])
    (sample,) = found.samples
    assert (sample.id, sample.parts) == ("c", ("embeddings",))
    one, other = RECORDS[2].embeddings.astype(float), embeddings.astype(float)
    largest = max(
        abs(x - y) / max(1, abs(x)) for x, y in zip(one.ravel(), other.ravel(), strict=True)
    )
    cosine = np.dot(one[3], other[3]) / np.linalg.norm(one[3]) / np.linalg.norm(other[3])
    assert sample.largest_deviation == pytest.approx(largest)
    assert sample.smallest_cosine == pytest.approx(cosine)
    assert found.embeddings is not None
    assert found.embeddings.patches == len(embeddings)
    assert found.class_changes == ()


def test_added_and_removed_pictures_are_named(base: Path) -> None:
    found = diff_from(base, [*RECORDS[1:], make_record("e"), make_record("f")])
    assert (found.added, found.removed) == (("e", "f"), ("a",))
    assert found.samples == ()
    assert any(line.startswith("splits.train") for line in found.recipe)


def test_recipe_fields_are_named_with_both_values(base: Path) -> None:
    found = diff_from(base, RECORDS, weights_sha256="ab" * 32)
    assert found.same_content
    assert not found.same
    (line,) = found.recipe
    assert line == "weights_sha256: 000000000000… and abababababab…"


def test_labels_of_other_schemas_are_not_counted_as_flips(base: Path) -> None:
    schema = LabelSpaceId(name="context59", sha256=load_label_space("context59").sha256)
    changed = relabelled(RECORDS[0], {(0, 0): 9})
    found = diff_from(base, [changed, *RECORDS[1:]], schema=schema)
    assert found.class_changes == ()
    assert found.samples[0].changed_pixels is None


def test_pictures_of_another_grid_differ_without_numbers(base: Path) -> None:
    found = diff_from(base, [make_record("a", (3, 3)), *RECORDS[1:]])
    (sample,) = found.samples
    assert sample.changed_pixels is None
    assert sample.largest_deviation is None


def test_quarantined_images_are_named(two_views: Built, quarantined: Built, bad_tree: Path) -> None:
    image_id = first_jpeg(bad_tree).stem
    found = diff(two_views.path, quarantined.path)
    assert found.newly_quarantined == (image_id,)
    assert (found.added, found.removed, found.samples) == ((), (), ())
    assert not found.same
    found = diff(quarantined.path, two_views.path)
    assert found.no_longer_quarantined == (image_id,)


def test_arrays_are_read_of_differing_samples_only(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write_records(
        base.parent / "other", [relabelled(RECORDS[0], {(0, 0): 7}), *RECORDS[1:]]
    )
    rows: list[int] = []
    read = Hdf5Shard.read

    def counted(shard: Hdf5Shard, row: int) -> Record:
        rows.append(row)
        return read(shard, row)

    monkeypatch.setattr(Hdf5Shard, "read", counted)
    diff(base, other)
    assert rows == [0, 0]


def test_shards_that_were_not_read_are_told_and_their_sizes_checked(
    base: Path, tmp_path: Path
) -> None:
    other = tmp_path / "copy"
    shutil.copytree(base, other)
    shard = min(other.glob("*.h5"))
    data = bytearray(shard.read_bytes())
    data[-600] ^= 1
    shard.write_bytes(data)
    value = diff(base, other).to_json()
    assert (value["same"], value["records_read"]) == (True, 0)
    assert value["compared"] == "indexes; sizes of shards"
    shard.write_bytes(data[:-1])
    with pytest.raises(ShardError, match=f"{shard}: expected .* found {len(data) - 1:,} bytes"):
        diff(base, other)
    shard.unlink()
    with pytest.raises(ShardError, match=f"{shard}: is missing"):
        diff(other, base)


def test_json_has_class_names_beside_class_ids(base: Path) -> None:
    before = int(RECORDS[0].label_map[0, 0])
    changed = relabelled(RECORDS[0], {(0, 0): 23})
    found = diff_from(base, [changed, *RECORDS[1:]])
    value = found.to_json()
    assert json.loads(json.dumps(value)) == value
    assert (value["same"], value["versions"]) == (False, list(found.versions))
    (change,) = value["class_changes"]
    names = load_label_space("context460").names
    assert change == {
        "before": before,
        "before_name": names[before],
        "after": 23,
        "after_name": names[23],
        "pixels": 1,
    }


def test_damaged_or_missing_version_is_a_shard_error(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ShardError):
        diff(base, tmp_path)
    (base / "samples.jsonl").write_text("")
    with pytest.raises(ShardError, match=r"samples\.jsonl"):
        diff(base, base)


KEYS = st.dictionaries(
    st.text("abc", min_size=1, max_size=2),
    st.tuples(st.sampled_from(["train", "val"]), st.integers(0, 1)),
    min_size=1,
    max_size=6,
)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(KEYS, KEYS)
def test_lists_are_compared_as_sets_of_ids_are(
    before: dict[str, tuple[str, int]], after: dict[str, tuple[str, int]]
) -> None:
    with TemporaryDirectory() as folder:
        paths = [made(Path(folder) / str(row), each) for row, each in enumerate((before, after))]
        found = diff(*paths)
    both = before.keys() & after.keys()
    assert found.added == tuple(sorted(after.keys() - both))
    assert found.removed == tuple(sorted(before.keys() - both))
    assert found.moved == tuple(sorted(key for key in both if before[key][0] != after[key][0]))
    changed = sorted(key for key in both if before[key][1] != after[key][1])
    assert [record.id for record in found.samples] == changed
    assert found.same_content == (before == after)


def made(out: Path, images: dict[str, tuple[str, int]]) -> Path:
    """A version of small records, by image id their split and seed."""
    records: dict[str, list[Record]] = {}
    for image_id, (split, seed) in images.items():
        record = make_record(image_id, (1, 1), dim=1, split=split, seed=seed)
        records.setdefault(split, []).append(record)
    recipe = Recipe(
        dataset="made",
        schema=LabelSpaceId(name="context460", sha256=load_label_space("context460").sha256),
        splits={split: SplitIds.of([r.image_id for r in each]) for split, each in records.items()},
        backbone="resnet32-cifar100",
        weights_sha256="00" * 32,
    )
    write_dataset(out, recipe, records, Layout(samples_per_shard=2))
    return out


def test_versions_of_one_content_are_compared_without_their_lists(
    two_views: Built, copied: Path
) -> None:
    (copied / "samples.jsonl").write_bytes(b"?" * (copied / "samples.jsonl").stat().st_size)
    assert diff(two_views.path, copied).same
