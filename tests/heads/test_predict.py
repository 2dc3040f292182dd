"""``predict`` as a library call: image files in, label maps with named classes out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders.heads import make_dataset, random_records, run_for
from builders.jpeg import exif_of
from builders.progress import CountedProgress
from PIL import Image

import vocprep
from vocprep.errors import RunError, SourceUnavailableError, UsageError
from vocprep.features.embed import Embedder, EmbeddingSpec
from vocprep.features.weights import load_weights, tensor_digest
from vocprep.geometry import Geometry
from vocprep.heads.predict import PredictOptions, predict
from vocprep.heads.predict_image import predict_image
from vocprep.heads.runs.run import Run

pytestmark = pytest.mark.slow

WEIGHTS = "random:0"
OPTIONS = PredictOptions(weights=WEIGHTS, device="cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Untrained heads over the backbone that ``WEIGHTS`` stands for."""
    digest = tensor_digest(load_weights(WEIGHTS, Path("data")))
    folder = tmp_path_factory.mktemp("data") / "shards"
    splits = {"val": random_records("val", [(1, 2)])}
    return run_for(make_dataset(folder, splits, weights_sha256=digest))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (70, 100, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "scene.png")
    return tmp_path / "scene.png"


def test_a_prediction_names_its_classes(run: Run, image: Path) -> None:
    (found,) = predict(run, str(image), options=OPTIONS).images
    weights, spec = load_weights(WEIGHTS, Path("data")), EmbeddingSpec.of(run.config.recipe)
    embedder = Embedder(weights, spec, device=run.model.cat.weight.device)
    with Image.open(image) as picture:
        expected = predict_image(run, np.asarray(picture), embedder).label_map
    assert np.array_equal(found.label_map, expected)
    ids, counts = np.unique(expected, return_counts=True)
    areas = dict(zip(ids.tolist(), counts.tolist(), strict=True))
    assert {share.id: share.pixels for share in found.classes} == areas
    pixels = [share.pixels for share in found.classes]
    assert pixels == sorted(pixels, reverse=True)
    for share in found.classes:
        assert share.name == run.config.labels.names[share.id]
        assert share.percent == 100 * share.pixels / (64 * 96)
    assert found.files is None


def test_what_is_written_is_what_is_returned(run: Run, image: Path, tmp_path: Path) -> None:
    (kept,) = predict(run, [image, image], options=OPTIONS).images
    assert not (tmp_path / "out").exists()
    (written,) = predict(run, [image], str(tmp_path / "out"), OPTIONS).images
    assert written.files is not None
    assert {Path(written.files.overlay), Path(written.files.labels)} == set(
        (tmp_path / "out").iterdir()
    )
    assert np.array_equal(written.label_map, kept.label_map)
    assert written.classes == kept.classes


def test_confidence_is_returned_or_written_where_it_is_asked_for(
    run: Run, image: Path, tmp_path: Path
) -> None:
    asked = replace(OPTIONS, confidence=True)
    (kept,) = predict(run, image, options=asked).images
    assert kept.confidence is not None
    assert kept.confidence.shape == kept.label_map.shape
    assert 0 <= kept.confidence.min() < kept.confidence.max() <= 1
    (plain,) = predict(run, image, tmp_path / "plain", OPTIONS).images
    (written,) = predict(run, image, tmp_path / "out", asked).images
    assert written.files is not None
    assert plain.files is not None
    assert plain.confidence is written.confidence is plain.files.confidence is None
    names = ["scene.confidence.png", "scene.labels.png", "scene.overlay.png"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    with Image.open(str(written.files.confidence)) as picture:
        assert picture.mode == "L"
        np.testing.assert_allclose(np.asarray(picture) / 255, kept.confidence, atol=0.51 / 255)
    with Image.open(written.files.overlay) as drawn, Image.open(plain.files.overlay) as without:
        assert drawn.width > without.width
    assert written.to_json()["confidence"] == written.files.confidence
    assert sorted(plain.to_json()) == ["classes", "image", "labels", "overlay"]


def test_bad_images_are_listed_and_the_others_done(run: Run, image: Path, tmp_path: Path) -> None:
    bad, tiny, missing = (tmp_path / name for name in ("bad.jpg", "tiny.png", "missing.png"))
    bad.write_text("no image")
    Image.new("RGB", (20, 20)).save(tiny)
    progress = CountedProgress()
    result = predict(run, [bad, image, tiny, missing], options=OPTIONS, progress=progress)
    assert not result.ok
    assert [item.image for item in result.images] == [image]
    assert [item.image for item in result.errors] == [bad, tiny, missing]
    assert all(item.error.startswith(f"{item.image}: ") for item in result.errors)
    assert (progress.total, progress.count, progress.ended) == (4, 4, True)
    value = result.to_json()
    assert (value["ok"], len(value["images"]), len(value["errors"])) == (False, 1, 3)


def test_images_that_were_turned_upright_are_named(run: Run, image: Path, tmp_path: Path) -> None:
    with Image.open(image) as picture:
        picture.save(tmp_path / "turned.jpg", "JPEG", exif=exif_of(6))
    native = replace(OPTIONS, geometry="native")
    found = predict(run, [image, tmp_path / "turned.jpg"], options=native)
    assert [item.label_map.shape for item in found.images] == [(70, 100), (100, 70)]
    (note,) = found.notes
    assert "state an orientation: 1 (turned.jpg); they were turned upright" in note
    assert found.to_json()["notes"] == [note]


def test_native_keeps_every_pixel(run: Run, image: Path) -> None:
    options = PredictOptions(weights=WEIGHTS, geometry="native")
    assert options.geometry == Geometry(geometry="native", edge="pad")
    (found,) = predict(run, image, options=options).images
    assert found.label_map.shape == (70, 100)
    with pytest.raises(UsageError, match="geometry 'wide': expected one of crop, squash, native"):
        PredictOptions(geometry="wide")  # type: ignore[arg-type]


def test_other_weights_are_refused(run: Run, image: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="give the same --weights as to build-shards"):
        predict(run, image, options=PredictOptions(weights="random:1"))
    with pytest.raises(SourceUnavailableError, match="expected the weights that its shards were"):
        predict(run, image, options=PredictOptions(data_dir=tmp_path))


def test_images_of_one_name_are_refused(run: Run, image: Path, tmp_path: Path) -> None:
    other = tmp_path / "below" / image.name
    with pytest.raises(UsageError, match="expected different names"):
        predict(run, [image, other], tmp_path / "out", OPTIONS)
    assert predict(run, [image, other], options=OPTIONS).images[0].image == image


def test_it_is_public() -> None:
    assert vocprep.predict is predict
