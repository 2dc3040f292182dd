from __future__ import annotations

import io
from dataclasses import fields

import numpy as np
import pytest
from PIL import Image

from vocprep.heads.runs.history import EpochMetrics
from vocprep.heads.scoring.evaluation import ClassScore, Evaluation
from vocprep.heads.scoring.metrics import ConfusionMatrix
from vocprep.labels.label_space import load_label_space
from vocprep.labels.statistics import LabelStatistics
from vocprep.pages.plot import (
    LEGEND_ROWS,
    confusion_png,
    confusion_shares,
    curves_png,
    label_chart_png,
    overlay,
    palette,
    png_bytes,
)

VOC_COLOURS = [
    (0, 0, 0),
    (128, 0, 0),
    (0, 128, 0),
    (128, 128, 0),
    (0, 0, 128),
    (128, 0, 128),
    (0, 128, 128),
    (128, 128, 128),
    (64, 0, 0),
    (192, 0, 0),
    (64, 128, 0),
    (192, 128, 0),
    (64, 0, 128),
    (192, 0, 128),
    (64, 128, 128),
    (192, 128, 128),
    (0, 64, 0),
    (128, 64, 0),
    (0, 192, 0),
    (128, 192, 0),
    (0, 64, 128),
]
"""Background to tvmonitor, as the VOC development kit prints them."""


def opened(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
        picture.load()
        return picture


def test_palette_begins_with_the_colours_of_voc() -> None:
    assert [tuple(colour) for colour in palette()[:21].tolist()] == VOC_COLOURS
    assert tuple(palette()[255].tolist()) == (224, 224, 192)


def test_palette_of_voc_has_256_different_colours() -> None:
    assert palette().shape == (256, 3)
    assert len({tuple(colour) for colour in palette().tolist()}) == 256


def test_larger_palette_begins_with_the_smaller() -> None:
    large = palette(460)
    assert large.shape == (460, 3)
    np.testing.assert_array_equal(large[:256], palette())


def name_of(label: int) -> str:
    return f"class {label}"


def test_overlay_is_the_picture_the_mixture_and_a_legend() -> None:
    image = np.full((96, 64, 3), 200, dtype=np.uint8)
    label_map = np.zeros((96, 64), dtype=np.uint16)
    label_map[:48] = 15
    sheet = overlay(image, label_map, name_of, unpainted=[0], opacity=0.5)
    assert sheet.mode == "RGB"
    assert sheet.height >= 96
    assert sheet.width > 2 * 64
    assert sheet.getpixel((10, 10)) == (200, 200, 200)
    assert sheet.getpixel((64 + 10, 10)) == (196, 164, 164)
    assert sheet.getpixel((64 + 10, 90)) == (200, 200, 200)
    legend = np.asarray(sheet)[:, 128:]
    assert (legend == VOC_COLOURS[15]).all(axis=-1).any()
    assert opened(png_bytes(sheet)).size == sheet.size
    assert overlay(image, label_map, name_of, opacity=0.5).getpixel((64 + 10, 90)) == (100,) * 3


@pytest.mark.parametrize("opacity", [0.0, 1.0])
def test_opacity_goes_from_the_picture_to_the_labels(opacity: float) -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    label_map = np.full((32, 32), 459, dtype=np.uint16)
    mixed = np.asarray(overlay(image, label_map, name_of, opacity=opacity))[:32, 32:64]
    np.testing.assert_array_equal(mixed, palette(460)[label_map] if opacity else image)


def test_legend_lists_the_largest_labels_and_says_how_many_more() -> None:
    image = np.zeros((32, 32, 3), dtype=np.uint8)
    named: list[int] = []

    def name(label: int) -> str:
        named.append(label)
        return str(label)

    label_map = np.repeat(np.arange(32, dtype=np.uint16), 32).reshape(32, 32)
    label_map[:3] = 300
    sheet = overlay(image, label_map, name)
    assert named[0] == 300
    assert len(named) == LEGEND_ROWS
    few = overlay(image, np.zeros((32, 32), dtype=np.uint16), name)
    assert sheet.height > few.height >= 32


def test_overlay_of_void_alone_draws() -> None:
    void = np.full((32, 32), 65535, dtype=np.uint16)
    assert overlay(np.zeros((32, 32, 3), dtype=np.uint8), void, name_of).width > 64


def history(scored: set[int]) -> list[EpochMetrics]:
    return [
        EpochMetrics(
            epoch=epoch,
            lr=0.1,
            loss=3.0 / epoch,
            category_loss=2.0 / epoch,
            mask_loss=1.0 / epoch,
            images_per_second=100.0,
            seconds=1.0,
            val_loss=4.0 / epoch if epoch in scored else None,
            val_miou=0.1 * epoch if epoch in scored else None,
        )
        for epoch in range(1, 5)
    ]


@pytest.mark.parametrize("scored", [set(), {4}, {1, 2, 3, 4}], ids=["never", "once", "always"])
def test_curves_open_and_change_with_the_scores(scored: set[int]) -> None:
    data = curves_png(history(scored))
    assert opened(data).width > 400
    assert curves_png(history(scored)) == data
    assert data != curves_png(history({2}))


def test_label_chart_opens_and_grows_with_its_labels() -> None:
    statistics = LabelStatistics(load_label_space("context460"))
    label_map = np.full((32, 32), 2, dtype=np.uint16)
    statistics.add(label_map)
    small = opened(label_chart_png(statistics))
    statistics.add(np.arange(1, 1025, dtype=np.uint16).reshape(32, 32) % 459 + 1)
    large = opened(label_chart_png(statistics))
    assert large.width == small.width
    assert large.height > small.height
    assert opened(label_chart_png(statistics, most=1)).height == small.height


def test_label_chart_of_nothing_but_void_draws() -> None:
    statistics = LabelStatistics(load_label_space("voc21"))
    statistics.add(np.full((32, 32), 255, dtype=np.uint16))
    assert opened(label_chart_png(statistics)).width > 0


def test_drawing_leaves_pyplot_alone() -> None:
    import matplotlib  # noqa: PLC0415  # what is tested is what drawing loads

    backend = matplotlib.rcParams["backend"]
    curves_png(history({1}))
    assert matplotlib.rcParams["backend"] == backend


def test_confusion_shares_are_of_the_rows_and_miss_nothing() -> None:
    counts = np.zeros((4, 5), dtype=np.int64)
    counts[1] = [0, 6, 2, 1, 1]
    counts[3] = [5, 0, 5, 0, 0]
    shares = confusion_shares(ConfusionMatrix(counts), [3, 1, 2])
    assert shares.tolist() == [[0, 0, 0.5, 0.5], [0.1, 0.6, 0.2, 0.1], [0, 0, 0, 0]]


@pytest.mark.parametrize("classes", [1, 40])
def test_confusion_matrix_is_drawn_for_any_number_of_classes(classes: int) -> None:
    counts = np.eye(classes, classes + 1, dtype=np.int64)
    scores = tuple(
        ClassScore(label=k, name=f"class {k}", pixels=1, iou=1.0, accuracy=1.0, oracle_iou=1.0)
        for k in range(classes)
    )
    made = Evaluation(
        **{**dict.fromkeys(field.name for field in fields(Evaluation)), "classes": scores}
        | {"confusion": ConfusionMatrix(counts), "run": "mine", "split": "val"}
    )
    small, large = opened(confusion_png(made, most=1)), opened(confusion_png(made))
    assert (large.width > small.width) == (classes > 1)
    assert large.width > large.height > 0
