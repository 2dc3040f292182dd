"""Crops as views: where they lie, what their records hold, and who reads them."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders.versions import ENGINE, Built, build, make_plan
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from vocprep.analysis.photographs import Photographs
from vocprep.building.describe import describe_plan
from vocprep.building.local import build_plan
from vocprep.building.pipeline import make_embedders
from vocprep.building.results import BuildResult
from vocprep.checks.diff import diff
from vocprep.checks.recompute import recompute
from vocprep.checks.version_content import verify_version_content
from vocprep.checks.version_files import verify_version_files
from vocprep.errors import UsageError
from vocprep.heads.runs.options import TrainOptions
from vocprep.heads.training.train import train
from vocprep.labels.decode import decode_label_map
from vocprep.options import BuildChoices, BuildOptions, Layout, LoaderOptions, VerifyOptions
from vocprep.views import Crops

pytestmark = pytest.mark.slow

CROPS = Crops(count=2, seed=7)
CHOICES = BuildChoices(
    limit_per_split=1,
    views=("identity", "flip", CROPS),
    precision="fp32",
    embedding_dtype="float32",
)
VIEWS = ("", "#flip", "#crop1", "#crop2")


@pytest.fixture(scope="module")
def cropped(sample_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(sample_tree, tmp_path_factory.mktemp("crops") / "out", CHOICES)


def drawn_box(seed: int, image_id: str, number: int, size: tuple[int, int]) -> tuple[int, ...]:
    """(top, left, side) by docs/format.md, in fractions."""
    text = b"vocprep crop 1\0%d\0%d\0" % (seed, number) + image_id.encode()
    digest = hashlib.sha256(text).hexdigest()
    u, v, w = (Fraction(int(digest[at : at + 16], 16), 2**64) for at in (0, 16, 32))
    area = (Fraction(1, 4) + Fraction(3, 4) * u) * min(size) ** 2
    side = math.ceil(math.sqrt(area)) - 1  # near enough, and then to the least side that suffices
    while side * side < area:
        side += 1
    return math.floor(v * (size[0] - side + 1)), math.floor(w * (size[1] - side + 1)), side


IMAGE_IDS = st.text("aB0é/# ", min_size=1, max_size=9)
SIDES = st.integers(1, 3000)


@given(st.integers(0, 2**63 - 1), IMAGE_IDS, st.integers(1, 99), st.tuples(SIDES, SIDES))
def test_a_crop_is_a_square_drawn_from_seed_id_and_number(
    seed: int, image_id: str, number: int, size: tuple[int, int]
) -> None:
    rows, columns = Crops(count=99, seed=seed).box(image_id, number, *size)
    top, left, side = drawn_box(seed, image_id, number, size)
    assert (rows, columns) == (slice(top, top + side), slice(left, left + side))
    assert 4 * side**2 >= min(size) ** 2
    assert rows.stop <= size[0]
    assert columns.stop <= size[1]


def test_crops_vary_in_size_and_place() -> None:
    boxes = [CROPS.box("a", number, 400, 500) for number in range(1, 100)]
    sides = np.array([rows.stop - rows.start for rows, _ in boxes])
    assert sides.min() < 220
    assert sides.max() > 380
    assert len({(rows.start, columns.start) for rows, columns in boxes}) > 90


def picture_and_labels(tree: Path, image_id: str) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    with Image.open(tree / "VOCdevkit/VOC2010/JPEGImages" / f"{image_id}.jpg") as picture:
        pixels = np.asarray(picture)
    path = tree / "trainval" / f"{image_id}.mat"
    return pixels, decode_label_map(path.read_bytes(), path)


def test_records_are_the_cut_squares_of_picture_and_label_map(
    cropped: Built, sample_tree: Path
) -> None:
    records, plan = cropped.records, cropped.plan
    ids = [sample.image_id for sample in plan.samples]
    assert [*records] == [image_id + view for image_id in ids for view in VIEWS]
    photographs = Photographs.of(cropped.dataset, sample_tree)
    made: list[NDArray[np.uint8]] = []
    for image_id in ids:
        pixels, labels = picture_and_labels(sample_tree, image_id)
        for number in (1, 2):
            record = records[f"{image_id}#crop{number}"]
            top, left, side = drawn_box(7, image_id, number, labels.shape)
            square = Image.fromarray(pixels[top : top + side, left : left + side])
            made.append(np.asarray(square.resize((224, 224), Image.Resampling.BILINEAR)))
            shown = photographs.read(record.image_id, record.image_sha256)
            np.testing.assert_array_equal(shown, made[-1])
            centres = (np.arange(224) + 0.5) * side / 224
            nearest = np.floor(centres).astype(int)
            expected = labels[np.ix_(top + nearest, left + nearest)]
            np.testing.assert_array_equal(record.label_map, expected)
            assert record.grid == (7, 7)
            assert record.image_sha256 == records[image_id].image_sha256
    cpu = [torch.device("cpu")]
    (embedder,) = make_embedders(plan.recipe, plan.weights, cpu, compiled=False)
    stored = [record.embeddings for name, record in records.items() if "#crop" in name]
    for one, other in zip(embedder.embed_images(made), stored, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


def test_other_containers_hold_the_same_and_reuse_crops_of_the_same_draw(
    cropped: Built, sample_tree: Path, tmp_path: Path
) -> None:
    tars = Layout(format="webdataset", samples_per_shard=1)
    more = replace(CHOICES, views=("identity", Crops(count=3, seed=7)))
    other_seed = replace(CHOICES, views=("identity", Crops(count=2, seed=8)))
    options = replace(ENGINE, reuse=cropped.path)
    found = {}
    for name, choices in (("tar", CHOICES), ("more", more), ("other", other_seed)):
        plan = make_plan(sample_tree, choices, tars)
        found[name] = build_plan(plan, tmp_path / name, options)
    assert found["tar"].index.content_id == cropped.index.content_id
    # Of each of two pictures: all four; the plain one and two crops of three; the plain one.
    assert [result.reused for result in found.values()] == [8, 6, 2]
    assert found["more"].index.content_id != found["other"].index.content_id
    changes = diff(cropped.path, tmp_path / "other")
    assert "crops.seed: 7 and 8" in changes.recipe
    assert {sample.id.partition("#")[2] for sample in changes.samples} == {"crop1", "crop2"}
    assert (changes.added, changes.removed) == ((), ())


def test_index_of_a_version_with_crops_is_of_format_4_and_verifies(
    cropped: Built, sample_tree: Path
) -> None:
    assert cropped.index.format_version == 4
    assert cropped.index.recipe.to_json()["crops"] == {"count": 2, "seed": 7, "rule": 1}
    assert cropped.index.recipe.to_json()["views"] == ["identity", "flip"]
    assert [(s.records, s.span.images) for s in cropped.index.shards if s.span] == [(4, 1), (4, 1)]
    for verify in (verify_version_files, verify_version_content):
        assert verify(cropped.path, 1).ok
    options = VerifyOptions(device="cpu", workers=1, data_dir=sample_tree, samples=1)
    result = recompute(cropped.dataset, options)
    assert result.report.ok
    assert result.measurements.embeddings.patches == 4 * 49


@pytest.mark.parametrize("mode", ["resident", "streaming"])
@pytest.mark.parametrize(
    ("choice", "views"),
    [
        (False, [""]),
        (True, VIEWS),
        (("flip",), ["", "#flip"]),
        (("crops",), ["", "#crop1", "#crop2"]),
    ],
)
def test_loader_draws_the_chosen_kinds_of_views(
    choice: Any, views: list[str], mode: Any, cropped: Built
) -> None:
    dataset, (train_id, _) = cropped.dataset, [s.image_id for s in cropped.plan.samples]
    options = LoaderOptions(mode=mode, all_views=choice, batch_size=3, shuffle=True)
    loader = dataset.loader("train", options)
    found = [image_id for batch in loader for image_id in batch.image_ids]
    assert sorted(found) == sorted(train_id + view for view in views)
    assert loader.samples == dataset.count("train", all_views=choice) == len(views)
    again = dataset.loader("train", options)
    again.load_state_dict(loader.state_dict())


@pytest.mark.parametrize(
    ("settings", "images"),
    [({}, 4), ({"crops": False}, 2), ({"flip": False}, 1), ({"flip": False, "crops": True}, 3)],
)
def test_training_takes_crops_as_mirrored_views_unless_told(
    settings: dict[str, bool], images: int, cropped: Built, tmp_path: Path
) -> None:
    options = TrainOptions(
        encoder="none", mask_head="cells", epochs=1, device="cpu", precision="fp32", **settings
    )
    summary = train(cropped.path, tmp_path / "run", options)
    assert summary.images == images
    assert any("--set crops=true" in note for note in summary.notes) == (
        settings == {"flip": False}
    )


def test_a_plan_counts_the_patches_of_all_views(cropped: Built) -> None:
    assert describe_plan(cropped.plan).patches == 2 * 4 * 49
    assert sum(shard.patches for shard in cropped.index.shards) == 2 * 4 * 49


def test_missing_crops_are_explained(cropped: Built) -> None:
    image_id = cropped.plan.samples[0].image_id
    with pytest.raises(UsageError, match="holds the crops 1 to 2 of each image"):
        cropped.dataset.record(f"{image_id}#crop3")


def test_parts_make_the_same_version_and_a_finished_one_is_kept(
    cropped: Built, sample_tree: Path, tmp_path: Path
) -> None:
    plan = make_plan(sample_tree, CHOICES, Layout(samples_per_shard=1))
    out = tmp_path / "parts"
    for part in ("0/2", "1/2"):
        build_plan(plan, out, BuildOptions(device="cpu", workers=2, part=part, reuse=cropped.path))
    result, again = build_plan(plan, out, ENGINE), build_plan(plan, out, ENGINE)
    assert isinstance(result, BuildResult)
    assert isinstance(again, BuildResult)
    assert (result.shards.made, result.shards.resumed) == (0, 2)
    assert result.index.content_id == cropped.index.content_id
    assert (again.published, again.shards.kept) == (False, 2)
