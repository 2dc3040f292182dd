"""``--to onnx``, read back by onnxruntime: the pixels of a run of cells, heads of one of slots."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from builders.exported_runs import batch_of, picture, predicted, run_block
from PIL import Image

import vocprep
from vocprep.exporting.options import Part
from vocprep.exporting.runs.source import RunSource
from vocprep.geometry import Grid
from vocprep.heads.predict_image import predict_label_map
from vocprep.placement import split_patches

pytestmark = pytest.mark.slow


def exported(source: RunSource, part: Part, out: Path) -> vocprep.ExportResult:
    options = replace(source.options, parts=(part,))
    return vocprep.export(source.run.path, "onnx", out, options)


@pytest.fixture(scope="module")
def pixels(cells: RunSource, tmp_path_factory: pytest.TempPathFactory) -> vocprep.ExportResult:
    return exported(cells, "pixels", tmp_path_factory.mktemp("pixels"))


@pytest.fixture(scope="module")
def heads(slots: RunSource, tmp_path_factory: pytest.TempPathFactory) -> vocprep.ExportResult:
    return exported(slots, "heads", tmp_path_factory.mktemp("heads"))


@pytest.mark.parametrize("grids", [[(1, 1)], [(7, 7)], [(2, 3), (5, 4), (1, 8)]])
def test_heads_label_padded_batches_of_embeddings(
    heads: vocprep.ExportResult, slots: RunSource, grids: list[Grid]
) -> None:
    embeddings, batch = batch_of(slots, grids)
    model = onnxruntime.InferenceSession(heads.path / "heads.onnx")
    names = ["class_probabilities", "label_map", "confidence"]
    outputs = model.run(names, {"embeddings": batch, "grids": np.array(grids)})
    for place, (each, grid) in enumerate(zip(embeddings, grids, strict=True)):
        chances, label_map, confidence = (output[place][: len(each)] for output in outputs)
        expected = predict_label_map(slots.run, each, grid, None, slots.class_weights)
        assert (label_map == split_patches(expected.label_map)).mean() > 0.999
        np.testing.assert_allclose(confidence, split_patches(expected.confidence), atol=1e-4)
        ranked = np.take_along_axis(chances, expected.patch_labels, axis=1)
        np.testing.assert_allclose(ranked, expected.patch_probabilities, atol=1e-4)
        np.testing.assert_allclose(chances.sum(axis=1), 1, atol=1e-4)


@pytest.mark.parametrize("grid", [(4, 6), (1, 2)])
def test_pixels_label_pictures_as_predict_does(
    pixels: vocprep.ExportResult, cells: RunSource, tmp_path: Path, grid: Grid
) -> None:
    image = picture(3, grid)
    expected_map, expected_confidence = predicted(cells, image, tmp_path)
    model = onnxruntime.InferenceSession(pixels.path / "pixels.onnx")
    label_map, confidence = model.run(["label_map", "confidence"], {"pixels": image[None]})
    assert label_map.dtype == np.int32
    assert len(np.unique(label_map)) > 1
    assert (label_map[0] == expected_map).mean() > 0.99
    assert np.quantile(np.abs(confidence[0] - expected_confidence), 0.99) < 1e-3


def test_a_model_says_what_it_is(heads: vocprep.ExportResult, slots: RunSource) -> None:
    labels = json.loads((heads.path / "labels.json").read_text())
    assert labels["names"]["1"] == "aeroplane"
    run_id = slots.run.config.run_id
    model = onnx.load(heads.path / "heads.onnx")
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(told["vocprep.labels"]) == labels
    assert (told["vocprep.run_id"], told["vocprep.opset"]) == (run_id, "18")
    assert {(each.domain, each.version) for each in model.opset_import} == {("", 18)}
    content = (heads.path / "heads.onnx").read_bytes()
    assert str(Path(vocprep.__file__).parents[1]).encode() not in content
    assert b"site-packages" not in content
    index = json.loads((heads.path / "export.json").read_text())
    assert (index["source"]["run_id"], index["versions"]["opset"]) == (run_id, "18")
    assert [file.name for file in heads.files] == ["heads.onnx", "labels.json"]
    (note,) = heads.notes
    assert note.endswith("pixels as PyTorch predicts them")


def test_the_same_run_gives_the_same_bytes(
    heads: vocprep.ExportResult, slots: RunSource, tmp_path: Path
) -> None:
    assert exported(slots, "heads", tmp_path).files == heads.files


def test_the_guide_s_lines_label_a_picture(
    pixels: vocprep.ExportResult,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Image.fromarray(picture(3, (4, 6))[:120]).save(tmp_path / "holiday.jpg")
    (tmp_path / "model").symlink_to(pixels.path)
    monkeypatch.chdir(tmp_path)
    names = run_block("onnxruntime")
    assert names["label_map"].shape == names["confidence"].shape == (1, 96, 192)
    assert "'" in capsys.readouterr().out
