"""Label maps of embeddings and of images, equal to those that evaluation scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from builders.heads import MASK_HEADS, cell_heads, make_dataset, make_recipe, random_records
from numpy.typing import NDArray

from vocprep.errors import DataError, RunError
from vocprep.geometry import Geometry
from vocprep.heads.model.tfdet import HeadsConfig, TFDetHeads, to_segment
from vocprep.heads.predict_image import predict_image, predict_label_map
from vocprep.heads.runs.class_shares import Decoding
from vocprep.heads.runs.config import RunConfig
from vocprep.heads.runs.options import TrainOptions
from vocprep.heads.runs.run import Run
from vocprep.heads.scoring.split_pass import run_batches
from vocprep.labels.label_space import load_label_space
from vocprep.options import LoaderOptions
from vocprep.placement import place_image, split_patches

pytestmark = pytest.mark.slow


class MeanColours:
    """An embedder that needs no weights, with digits that float16 cannot hold."""

    def embed_images(self, images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        means = [split_patches(image).mean(axis=(1, 2)) / 255 for image in images]
        return [np.tile(m, (1, 86))[:, :256].astype(np.float32) + np.float32(1e-5) for m in means]


@pytest.fixture(scope="module")
def run() -> Run:
    labels = load_label_space("voc21")
    config = RunConfig(
        heads=HeadsConfig(outputs=labels.outputs),
        options=TrainOptions(),
        labels=labels,
        recipe=make_recipe({}),
        content_id="cd" * 32,
        source_id="ef" * 32,
    )
    torch.manual_seed(0)
    model = TFDetHeads.from_config(config.heads).eval()
    return Run(path=Path("run"), config=config, model=model, epoch=1)


def test_label_map_is_the_dense_form_laid_out(run: Run):
    embeddings = np.random.default_rng(0).normal(size=(6, 256)).astype(np.float16)
    found = predict_label_map(run, embeddings, (2, 3))
    assert found.label_map.dtype == np.uint16
    assert found.label_map.shape == found.confidence.shape == (64, 96)
    tokens = torch.from_numpy(embeddings.astype(np.float32)).unsqueeze(0)
    with torch.inference_mode():
        y, z = run.model.probabilities(tokens, None, torch.tensor([[2, 3]]))
    strongest, labels = to_segment(y[0], z[0]).max(dim=-1)
    assert np.array_equal(
        split_patches(found.label_map).reshape(6, 1024), labels.numpy().astype(np.uint16)
    )
    assert np.array_equal(split_patches(found.confidence).reshape(6, 1024), strongest.numpy())
    assert np.array_equal(found.patch_labels, y[0].topk(4).indices.numpy())


@pytest.mark.parametrize("encoder", ["transformer", "none"])
def test_prediction_of_cells_is_what_evaluation_sees_in_a_padded_batch(
    run: Run, tmp_path: Path, encoder: str
):
    heads = cell_heads(encoder=encoder)
    config = replace(run.config, heads=heads)
    run = replace(run, config=config, model=TFDetHeads.from_config(heads).eval())
    records = random_records("val", [(2, 2), (3, 2), (1, 1)])
    dataset = make_dataset(tmp_path / "shards", {"val": records})
    loader = dataset.loader("val", LoaderOptions(batch_size=3, label_maps=True))
    with torch.inference_mode():
        (scored,) = run_batches(run.model, loader)
    for row, record in enumerate(records):
        found = predict_label_map(run, record.embeddings, record.grid)
        patches = len(record.embeddings)
        sure = scored.pixels.confidence[row, :patches].numpy()
        tiles = split_patches(found.confidence).reshape(-1, 1024)
        np.testing.assert_allclose(tiles, sure, atol=1e-5)
        labels = split_patches(found.label_map).reshape(-1, 1024)
        assert (labels == scored.pixels.label_map[row, :patches].numpy()).mean() > 0.999
        np.testing.assert_allclose(
            found.patch_probabilities,
            scored.class_logits[row, :patches].softmax(-1).topk(4).values.numpy(),
            atol=1e-5,
        )


def test_prediction_is_what_evaluation_sees_in_a_padded_batch(run: Run, tmp_path: Path):
    records = random_records("val", [(2, 2), (3, 2), (1, 1)])
    dataset = make_dataset(tmp_path / "shards", {"val": records})
    (batch,) = dataset.loader("val", LoaderOptions(batch_size=3))
    with torch.inference_mode():
        y, z = run.model.probabilities(batch.embeddings, batch.padding, batch.grids)
    for row, record in enumerate(records):
        found = predict_label_map(run, record.embeddings, record.grid)
        patches = len(record.embeddings)
        expected = z[row, :patches].amax(dim=-1).numpy()
        tiles = split_patches(found.confidence).reshape(patches, 1024)
        np.testing.assert_allclose(tiles, expected, atol=1e-5)
        assert np.array_equal(found.patch_labels, y[row, :patches].topk(4).indices.numpy())


def test_image_goes_through_geometry_and_the_shards_dtype(run: Run):
    image = np.random.default_rng(1).integers(0, 256, size=(70, 100, 3), dtype=np.uint8)
    found = predict_image(run, image, MeanColours())
    assert found.grid == (2, 3)
    assert np.array_equal(found.image, image[:64, :96])
    stored = MeanColours().embed_images([image[:64, :96]])[0].astype(np.float16)
    expected = predict_label_map(run, stored, (2, 3))
    assert np.array_equal(found.label_map, expected.label_map)
    assert np.array_equal(found.confidence, expected.confidence)


def test_another_geometry_when_given(run: Run):
    image = np.random.default_rng(1).integers(0, 256, size=(70, 100, 3), dtype=np.uint8)
    squash = Geometry(geometry="squash")
    found = predict_image(run, image, MeanColours(), squash)
    assert found.grid == (7, 7)
    assert np.array_equal(found.image, place_image(image, squash))
    assert found.label_map.shape == (224, 224)


def test_embeddings_of_another_shape_are_refused(run: Run):
    with pytest.raises(RunError, match=r"expected embeddings of shape \(6, 256\)"):
        predict_label_map(run, np.zeros((5, 256), dtype=np.float32), (2, 3))
    with pytest.raises(RunError, match=r"found \(6, 8\)"):
        predict_label_map(run, np.zeros((6, 8), dtype=np.float32), (2, 3))


def test_a_picture_without_a_whole_patch_is_refused(run: Run):
    with pytest.raises(DataError, match="no whole 32×32 patch"):
        predict_image(run, np.zeros((20, 100, 3), dtype=np.uint8), MeanColours())


def test_padding_is_no_part_of_a_prediction(run: Run) -> None:
    image = np.zeros((50, 70, 3), dtype=np.uint8)
    padded = Geometry(geometry="native", edge="pad")
    found = predict_image(run, image, MeanColours(), padded)
    assert found.grid == (2, 3)
    for pixels in (found.label_map, found.confidence, found.image):
        assert pixels.shape[:2] == (50, 70)


@pytest.mark.parametrize("size", [(300, 500), (33, 31), (224, 224)])
def test_a_run_on_crops_labels_every_pixel_of_a_native_picture(
    run: Run, size: tuple[int, int]
) -> None:
    recipe = replace(run.config.recipe, geometry=Geometry())
    trained = replace(run, config=replace(run.config, recipe=recipe))
    image = np.random.default_rng(2).integers(0, 256, size=(*size, 3), dtype=np.uint8)
    assert predict_image(trained, image, MeanColours()).label_map.shape == (224, 224)
    native = Geometry(geometry="native", edge="pad")
    found = predict_image(trained, image, MeanColours(), native)
    ny, nx = found.grid
    assert (ny, nx) == (-(-size[0] // 32), -(-size[1] // 32))
    # Patch by patch in the picture's order, which is what stitching must keep.
    padded = np.pad(image, [(0, ny * 32 - size[0]), (0, nx * 32 - size[1]), (0, 0)], mode="edge")
    embeddings = np.concatenate(
        [
            MeanColours().embed_images([padded[y * 32 :, x * 32 :][:32, :32]])[0]
            for y in range(ny)
            for x in range(nx)
        ]
    ).astype(np.float16)
    tokens = torch.from_numpy(embeddings.astype(np.float32))[None]
    with torch.inference_mode():
        y_logits, z = trained.model.probabilities(tokens, None, torch.tensor([[ny, nx]]))
    dense = to_segment(y_logits[0], z[0]).argmax(dim=-1).numpy()
    expected = np.zeros((ny * 32, nx * 32), dtype=np.uint16)
    for patch, pixels in enumerate(dense):
        y, x = patch // nx * 32, patch % nx * 32
        expected[y : y + 32, x : x + 32] = pixels.reshape(32, 32)
    assert np.array_equal(found.label_map, expected[: size[0], : size[1]])
    assert np.array_equal(found.image, image)


def test_long_sequences_say_the_same(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings = np.random.default_rng(0).normal(size=(12, 256)).astype(np.float32)
    short = predict_label_map(run, embeddings, (3, 4))
    monkeypatch.setattr("vocprep.heads.predict_image.LONG_SEQUENCE", 12)
    seen = []
    forward = TFDetHeads.forward
    monkeypatch.setattr(
        TFDetHeads,
        "forward",
        lambda *args: (seen.append(torch.backends.mha.get_fastpath_enabled()), forward(*args))[1],
    )
    long = predict_label_map(run, embeddings, (3, 4))
    assert seen == [False]
    assert torch.backends.mha.get_fastpath_enabled()
    np.testing.assert_allclose(long.confidence, short.confidence, atol=1e-5)
    assert (long.label_map == short.label_map).mean() > 0.99


@pytest.mark.parametrize("name", MASK_HEADS)
def test_the_mean_of_both_views_is_that_of_the_mirrored_picture_mirrored_back(run: Run, name: str):
    heads = HeadsConfig(outputs=21, depth=1, feedforward=64, **MASK_HEADS[name])
    torch.manual_seed(1)
    model = TFDetHeads.from_config(heads).eval()
    run = replace(run, config=replace(run.config, heads=heads), model=model)
    image = np.random.default_rng(1).integers(0, 256, size=(64, 96, 3), dtype=np.uint8)
    decoding = Decoding(tta="flip", class_weights=torch.linspace(1, 3, 21))
    found, other = (
        predict_image(run, each, MeanColours(), decoding=decoding)
        for each in (image, image[:, ::-1])
    )
    np.testing.assert_allclose(found.confidence, other.confidence[:, ::-1], atol=1e-5)
    assert (found.label_map == other.label_map[:, ::-1]).mean() > 0.999
    plain = predict_image(run, image, MeanColours())
    assert not np.allclose(found.confidence, plain.confidence, atol=1e-3)


def test_what_the_geometry_leaves_is_what_is_mirrored(run: Run):
    image = np.random.default_rng(1).integers(0, 256, size=(70, 100, 3), dtype=np.uint8)
    padded = Geometry(geometry="native", edge="pad")
    found = predict_image(run, image, MeanColours(), padded, Decoding(tta="flip"))
    placed = place_image(image, padded)
    stored, mirrored = (
        each.astype(np.float16) for each in MeanColours().embed_images([placed, placed[:, ::-1]])
    )
    expected = predict_label_map(run, stored, (3, 4), mirrored)
    assert np.array_equal(found.label_map, expected.label_map[:70, :100])
