"""From files to records: label maps, targets and embeddings of built versions."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from builders.versions import TWO_VIEWS, VOC, WEIGHTS, Built, build, make_plan
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from vocprep.building import stages
from vocprep.building.describe import describe_plan
from vocprep.building.stages import RecordDraft, SampleError, SampleStages, begin
from vocprep.data_dir.layout import SampleRef
from vocprep.features.networks import cifar100_resnet32
from vocprep.features.on_device.placing import Picture, place_on
from vocprep.features.weights import load_weights
from vocprep.geometry import Geometry, GeometryKind
from vocprep.labels.decode import decode_label_map
from vocprep.labels.targets import make_targets
from vocprep.options import BuildChoices, Layout
from vocprep.placement import mirror, place_image
from vocprep.shards.record import Record
from vocprep.shards.samples import QuarantinedSample
from vocprep.views import ChosenView, Crops

pytestmark = pytest.mark.slow

DESCRIBED = (
    *("split", "grid", "image_sha256", "label_sha256"),
    *("targets_sha256", "embeddings_sha256", "record_sha256"),
)


def test_both_containers_hold_the_same_records(
    crop_hdf5: Built, crop_tar: Built, native_hdf5: Built, native_tar: Built
) -> None:
    for one, other in ((crop_hdf5, crop_tar), (native_hdf5, native_tar)):
        assert one.index.content_id == other.index.content_id
        assert one.index.source_id == other.index.source_id
        assert one.index.recipe_id == other.index.recipe_id
        counted = [{**i.index.statistics, "seconds": None} for i in (one, other)]
        assert counted[0] == counted[1]
        assert one.index.container != other.index.container
        digests = {image_id: record.record_sha256 for image_id, record in one.records.items()}
        assert digests == {
            image_id: record.record_sha256 for image_id, record in other.records.items()
        }
    assert crop_hdf5.index.content_id != native_hdf5.index.content_id


@pytest.mark.slow
def test_content_id_does_not_depend_on_the_cut(sample_tree: Path, tmp_path: Path) -> None:
    """Nor does it on which patches are embedded together, which follows the cut."""
    choices = BuildChoices(limit_per_split=3, embedding_dtype="float32", views=("identity", "flip"))
    built = [
        build(sample_tree, tmp_path / f"{size}", choices, Layout(samples_per_shard=size))
        for size in (2, 500)
    ]
    assert [len(one.index.shards) for one in built] == [3, 2]
    assert len({one.index.content_id for one in built}) == 1
    assert len({one.index.source_id for one in built}) == 1


@pytest.mark.parametrize("name", ["crop_hdf5", "crop_tar", "native_hdf5"])
def test_shards_hold_the_planned_pictures_in_order_each_with_its_views(
    name: str, request: pytest.FixtureRequest
) -> None:
    built: Built = request.getfixturevalue(name)
    suffixes = ["#flip" if view == "flip" else "" for view in built.plan.recipe.views]
    for shard in built.plan.shards:
        records = list(built.dataset.read_shard(shard.name, all_views=True))
        assert [record.image_id for record in records] == [
            sample.image_id + suffix for sample in shard.samples for suffix in suffixes
        ]
        assert {record.split for record in records} == {shard.split}


def test_samples_file_describes_every_record_at_its_place(
    crop_hdf5: Built, native_tar: Built
) -> None:
    for built in (crop_hdf5, native_tar):
        records, dataset = built.records, built.dataset
        assert [sample.id for sample in dataset.samples] == sorted(records)
        for sample in dataset.samples:
            record = records[sample.id]
            for name in DESCRIBED:
                assert getattr(sample, name) == getattr(record, name), name
            in_shard = [
                record.image_id for record in dataset.read_shard(sample.shard, all_views=True)
            ]
            assert in_shard[sample.row] == sample.id


def test_targets_are_those_of_the_records_own_label_map(
    crop_hdf5: Built, native_hdf5: Built
) -> None:
    for built in (crop_hdf5, native_hdf5):
        for record in built.records.values():
            targets = make_targets(record.label_map, built.plan.label_space.void)
            for name in ("slot_labels", "slot_pixels", "label_count", "slot_planes"):
                np.testing.assert_array_equal(getattr(record, name), getattr(targets, name))


def test_label_maps_of_native_geometry_are_the_files_own_with_void_around(
    native_hdf5: Built, sample_tree: Path
) -> None:
    for record in identity_records(native_hdf5):
        path = sample_tree / "trainval" / f"{record.image_id}.mat"
        raw = decode_label_map(path.read_bytes(), path)
        height, width = raw.shape
        np.testing.assert_array_equal(record.label_map[:height, :width], raw)
        assert (record.label_map[height:] == 0).all()
        assert (record.label_map[:, width:] == 0).all()


def identity_records(built: Built) -> list[Record]:
    return [record for record in built.records.values() if "#" not in record.image_id]


def plain_embeddings(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """One picture through the network as trained: batch norms not folded, patch by patch."""
    network = cifar100_resnet32()
    network.load_state_dict(load_weights(WEIGHTS, Path()))
    trunk = nn.Sequential(*list(network.eval().children())[:-2])
    mean = np.array([0.5070, 0.4865, 0.4409], dtype=np.float32)
    std = np.array([0.2673, 0.2564, 0.2761], dtype=np.float32)
    rows = []
    for top in range(0, pixels.shape[0], 32):
        for left in range(0, pixels.shape[1], 32):
            patch = pixels[top : top + 32, left : left + 32].astype(np.float32) / 255
            rows.append(((patch - mean) / std).transpose(2, 0, 1))
    with torch.no_grad():
        maps = trunk(torch.from_numpy(np.stack(rows))).numpy()
    means = maps.reshape(len(rows), 64, 2, 4, 2, 4).mean(axis=(3, 5))
    return means.reshape(len(rows), 256)


NATIVE_FP32 = replace(
    TWO_VIEWS, geometry=Geometry(geometry="native", edge="pad"), embedding_dtype="float32"
)


@pytest.mark.slow
@pytest.mark.parametrize(("choices", "tolerance"), [(TWO_VIEWS, 1e-3), (NATIVE_FP32, 1e-5)])
def test_embeddings_are_those_of_the_plain_network(
    choices: BuildChoices, tolerance: float, sample_tree: Path, tmp_path: Path
) -> None:
    built = build(sample_tree, tmp_path / "out", choices)
    for record in list(built.records.values())[:3]:
        image_id, _, view = record.image_id.partition("#")
        with Image.open(sample_tree / VOC / "JPEGImages" / f"{image_id}.jpg") as picture:
            pixels = place_image(np.asarray(picture), built.plan.recipe.geometry)
        expected = plain_embeddings(mirror(pixels) if view else pixels)
        scale = float(np.abs(expected).max())
        assert scale > 0.1
        np.testing.assert_allclose(
            record.embeddings.astype(np.float32), expected, rtol=tolerance, atol=tolerance * scale
        )


def test_embedding_dtype_decides_the_precision_alone(
    crop_hdf5: Built, sample_tree: Path, tmp_path: Path
) -> None:
    assert {r.embeddings.dtype for r in crop_hdf5.records.values()} == {np.dtype("float16")}
    wide = build(
        sample_tree, tmp_path / "out", BuildChoices(limit_per_split=2, embedding_dtype="float32")
    )
    for image_id, record in wide.records.items():
        assert record.embeddings.dtype == np.float32
        narrow = crop_hdf5.records[image_id]
        assert record.targets_sha256 == narrow.targets_sha256
        np.testing.assert_array_equal(record.embeddings.astype(np.float16), narrow.embeddings)


def test_mirrored_view_is_the_mirror_image(native_hdf5: Built, crop_hdf5: Built) -> None:
    records = native_hdf5.records
    assert len(records) == 2 * len(identity_records(native_hdf5))
    for record in identity_records(native_hdf5):
        flip = records[f"{record.image_id}#flip"]
        assert flip.grid == record.grid
        assert (flip.image_sha256, flip.label_sha256) == (record.image_sha256, record.label_sha256)
        np.testing.assert_array_equal(flip.label_map, record.label_map[:, ::-1])
        counts = record.label_count.reshape(record.grid)
        np.testing.assert_array_equal(flip.label_count.reshape(flip.grid), counts[:, ::-1])
        assert flip.embeddings_sha256 != record.embeddings_sha256
    assert all("#" not in image_id for image_id in crop_hdf5.records)


@pytest.mark.slow
def test_one_byte_of_one_file_changes_the_source_id(
    crop_hdf5: Built, sample_tree: Path, tmp_path: Path
) -> None:
    choices = BuildChoices(limit_per_split=1)
    plain = build(sample_tree, tmp_path / "plain", choices)
    image_id = plain.plan.samples[0].image_id
    jpeg = Path(VOC / "JPEGImages" / f"{image_id}.jpg")
    mat = Path("trainval", f"{image_id}.mat")

    def comment(data: bytes) -> bytes:
        return data[:2] + b"\xff\xfe\x00\x03!" + data[2:]

    def header(data: bytes) -> bytes:
        return b"m" + data[1:]

    for number, (path, change) in enumerate(((jpeg, comment), (mat, header))):
        tree = Path(shutil.copytree(sample_tree, tmp_path / f"tree{number}"))
        (tree / path).write_bytes(change((tree / path).read_bytes()))
        changed = build(tree, tmp_path / f"out{number}", choices)
        assert changed.index.recipe_id == plain.index.recipe_id
        assert changed.index.source_id != plain.index.source_id
        assert changed.index.content_id != plain.index.content_id
        one, other = changed.records[image_id], plain.records[image_id]
        assert one.embeddings_sha256 == other.embeddings_sha256
        assert one.targets_sha256 == other.targets_sha256


@pytest.mark.slow
@pytest.mark.parametrize(
    ("choices", "dim"),
    [
        (BuildChoices(limit_per_split=1, windows=(32, 64), layers=("layer3", "layer2")), 2 * 768),
        (BuildChoices(limit_per_split=1, backbone="resnet18-imagenet"), 512),
    ],
    ids=["wide", "resnet18"],
)
def test_other_embeddings_come_with_the_same_targets(
    choices: BuildChoices, dim: int, sample_tree: Path, crop_hdf5: Built, tmp_path: Path
) -> None:
    built = build(sample_tree, tmp_path / "out", choices)
    for image_id, record in built.records.items():
        assert record.embeddings.shape == (49, dim)
        assert np.isfinite(record.embeddings).all()
        assert record.targets_sha256 == crop_hdf5.records[image_id].targets_sha256
    assert built.index.recipe_id != crop_hdf5.index.recipe_id
    size = sum(shard.bytes for shard in built.index.shards)
    assert size == pytest.approx(describe_plan(built.plan).estimated_bytes, rel=0.25)


def test_sample_error_pickles() -> None:
    bad = QuarantinedSample(id="a", split="val", stage="read", file="a.jpg", reason="is missing")
    copy = pickle.loads(pickle.dumps(SampleError("a.jpg: is missing", bad)))
    assert (str(copy), copy.quarantined) == ("a.jpg: is missing", bad)


@pytest.mark.parametrize("kind", get_args(GeometryKind))
def test_pixels_that_a_device_places_are_those_that_the_host_places(
    kind: GeometryKind, sample_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    views: tuple[ChosenView, ...] = ("identity", "flip")
    if kind != "native":
        views += (Crops(count=1, seed=0),)
    choices = BuildChoices(geometry=Geometry(geometry=kind), views=views, limit_per_split=1)
    plan = make_plan(sample_tree, choices)
    host = SampleStages(recipe=plan.recipe, label_space=plan.label_space, data_dir=plan.data_dir)
    later = replace(host, place_on_device=True)
    for sample in plan.samples:
        placed = [draft.pixels for draft in drafts(host, sample)]
        pictures = [draft.pixels for draft in drafts(later, sample)]
        assert all(isinstance(pixels, np.ndarray) for pixels in placed)
        # Patches of native geometry are cut without a resize: a device would gain nothing.
        assert all(isinstance(pixels, Picture) == (kind != "native") for pixels in pictures)
        needed = [pixels for pixels in pictures if pixels is not None]
        for numbers, stack in place_on(torch.device("cpu"), needed):
            for number, pixels in zip(numbers, stack.numpy(), strict=True):
                np.testing.assert_array_equal(pixels, placed[number])
        with monkeypatch.context() as patch:
            patch.setattr(stages, "MOST_BYTES", 1000)
            np.testing.assert_equal([draft.pixels for draft in drafts(later, sample)], placed)


def drafts(by: SampleStages, sample: SampleRef) -> list[RecordDraft]:
    outcome = begin(sample).then(by.read).then(by.decode_image).then(by.decode_labels)
    made = outcome.then(by.place).then(by.make_targets).made
    assert made is not None
    return made
