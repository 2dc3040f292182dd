"""Charts of trainings, label statistics and confusions open, and show what they are given."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from builders.images import opened

from vocprep.heads.runs.log import EpochMetrics, draw_curves
from vocprep.heads.scoring.measures.metrics import ConfusionMatrix, confusion_shares
from vocprep.heads.scoring.scores import ClassScore, RunScores, draw_confusion
from vocprep.labels.label_space import load_label_space
from vocprep.labels.statistics import LabelStatistics, draw_label_chart


def history(scored: set[int], train: float | None = None) -> list[EpochMetrics]:
    return [
        EpochMetrics(
            epoch=epoch,
            lr=0.1,
            loss=3.0 / epoch,
            class_loss=2.0 / epoch,
            mask_loss=1.0 / epoch,
            images_per_second=100.0,
            seconds=1.0,
            val_loss=4.0 / epoch if epoch in scored else None,
            val_miou=0.1 * epoch if epoch in scored else None,
            train_loss=train if epoch in scored else None,
            train_miou=train if epoch in scored else None,
        )
        for epoch in range(1, 5)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("scored", [set(), {4}, {1, 2, 3, 4}], ids=["never", "once", "always"])
def test_curves_open_and_change_with_the_scores(scored: set[int]) -> None:
    data = draw_curves(history(scored))
    assert opened(data).width > 400
    assert draw_curves(history(scored)) == data
    assert data != draw_curves(history({2}))
    assert (data != draw_curves(history(scored, train=0.9))) == bool(scored)


def test_label_chart_opens_and_grows_with_its_labels() -> None:
    statistics = LabelStatistics(load_label_space("context460"))
    label_map = np.full((32, 32), 2, dtype=np.uint16)
    statistics.add(label_map)
    small = opened(draw_label_chart(statistics))
    statistics.add(np.arange(1, 1025, dtype=np.uint16).reshape(32, 32) % 459 + 1)
    large = opened(draw_label_chart(statistics))
    assert large.width == small.width
    assert large.height > small.height
    assert opened(draw_label_chart(statistics, most=1)).height == small.height


def test_label_chart_of_nothing_but_void_draws() -> None:
    statistics = LabelStatistics(load_label_space("voc21"))
    statistics.add(np.full((32, 32), 255, dtype=np.uint16))
    assert opened(draw_label_chart(statistics)).width > 0


def test_drawing_leaves_pyplot_alone() -> None:
    import matplotlib  # noqa: PLC0415  # what is tested is what drawing loads

    backend = matplotlib.rcParams["backend"]
    draw_curves(history({1}))
    assert matplotlib.rcParams["backend"] == backend


def test_confusion_shares_are_of_the_rows_and_miss_nothing() -> None:
    counts = np.zeros((4, 5), dtype=np.int64)
    counts[1] = [0, 6, 2, 1, 1]
    counts[3] = [5, 0, 5, 0, 0]
    shares = confusion_shares(ConfusionMatrix(counts), [3, 1, 2])
    assert shares.tolist() == [[0, 0, 0.5, 0.5], [0.1, 0.6, 0.2, 0.1], [0, 0, 0, 0]]


@pytest.mark.slow
@pytest.mark.parametrize("classes", [1, 40])
def test_confusion_matrix_is_drawn_for_any_number_of_classes(classes: int) -> None:
    counts = np.eye(classes, classes + 1, dtype=np.int64)
    scores = tuple(
        ClassScore(id=k, name=f"class {k}", pixels=1, iou=1.0, accuracy=1.0, oracle_iou=1.0)
        for k in range(classes)
    )
    made = RunScores(
        **{**dict.fromkeys(field.name for field in fields(RunScores)), "classes": scores}
        | {"confusion": ConfusionMatrix(counts), "run": "mine", "split": "val"}
    )
    small, large = opened(draw_confusion(made, most=1)), opened(draw_confusion(made))
    assert (large.width > small.width) == (classes > 1)
    assert large.width > large.height > 0
