"""Pictures of predictions: the best and the worst of a run, and where two runs differ most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vocprep.analysis.photographs import Photographs
from vocprep.drawing.label_maps import paint_errors, paint_label_map
from vocprep.drawing.legend import LegendRow, legend_rows
from vocprep.heads.predict_image import predict_label_map
from vocprep.heads.runs.run import Run
from vocprep.heads.scoring.comparison import ImageDifference, image_differences
from vocprep.heads.scoring.measures.image_scores import ImageScore
from vocprep.pages.report.options import ReportOptions
from vocprep.pages.report.page import Picture, Section, section
from vocprep.pages.report.runs.comparison import signed
from vocprep.pages.report.runs.scored import ScoredRun
from vocprep.shards.reader import ShardDataset

_LARGEST = 512
"""Longer side in pixels beyond which pictures are reduced."""
_LEGEND = 8
_MOST_RUNS = 2
Pixels = NDArray[np.uint8]
LabelMap = NDArray[np.uint16]


@dataclass(frozen=True, kw_only=True)
class Row:
    """Pictures of one image side by side."""

    image_id: str
    words: str
    """Its scores."""
    panels: Sequence[tuple[Picture, str]]
    legend: Sequence[LegendRow]


def pictures_sections(runs: Sequence[ScoredRun], options: ReportOptions) -> list[Section]:
    """Return the pictures of one run, or of two; nothing of more, or where none are wanted."""
    if len(runs) > _MOST_RUNS or not options.pictures:
        return []
    photographs = None
    if options.data_dir is not None:
        photographs = Photographs.of(runs[0].dataset, options.data_dir, options.dataset)
    gallery = _Gallery(runs, photographs)
    if len(runs) == 1:
        groups = _best_and_worst(gallery, runs[0], options.pictures)
    else:
        groups = _most_different(gallery, runs, options.pictures)
    return [
        section(
            "pictures",
            "Pictures",
            "run_pictures.html",
            groups=groups,
            runs=[each.name for each in runs],
            has_photographs=photographs is not None,
        )
    ]


def _best_and_worst(gallery: _Gallery, run: ScoredRun, most: int) -> list[tuple[str, list[Row]]]:
    scores = sorted(
        run.scores.confusions.scores, key=lambda each: (each.pixel_accuracy, each.image_id)
    )
    worst = scores[: min(most, (len(scores) + 1) // 2)]
    best = scores[len(worst) :][::-1][:most]
    return [
        (heading, [gallery.row(each.image_id, _score_words(each)) for each in chosen])
        for heading, chosen in (("The worst", worst), ("The best", best))
        if chosen
    ]


def _most_different(
    gallery: _Gallery, runs: Sequence[ScoredRun], most: int
) -> list[tuple[str, list[Row]]]:
    first, second = runs
    found = image_differences(first.scores, second.scores)
    gained = [each for each in found if each.difference > 0][:most]
    lost = [each for each in reversed(found) if each.difference < 0][:most]
    return [
        (f"{better.name} is better", [gallery.row(each.image_id, _words(each)) for each in chosen])
        for better, chosen in ((second, gained), (first, lost))
        if chosen
    ]


def _score_words(score: ImageScore) -> str:
    return (
        f"pixel accuracy {100 * score.pixel_accuracy:.1f} %, mIoU {100 * score.miou:.1f} %, "
        f"loss {score.loss:.2f}"
    )


def _words(found: ImageDifference) -> str:
    return (
        f"pixel accuracy {100 * found.first:.1f} % and {100 * found.second:.1f} %: "
        f"{signed(found.difference)}"
    )


class _Gallery:
    """What draws images with the predictions of runs."""

    def __init__(self, runs: Sequence[ScoredRun], photographs: Photographs | None) -> None:
        self._runs, self._photographs = runs, photographs
        self._style = runs[0].run.config.labels.style

    def row(self, image_id: str, words: str) -> Row:
        """Return an image's photograph, ground truth, and each run's prediction with its errors."""
        record = self._runs[0].dataset.record(image_id)
        truth = record.decode_label_map()
        step = -(-max(truth.shape) // _LARGEST)
        truth, photograph = truth[::step, ::step], None
        panels: list[tuple[Picture, str]] = []
        if self._photographs is not None:
            placed = Image.fromarray(self._photographs.read(image_id, record.image_sha256))
            photograph = np.asarray(placed.reduce(step))
            panels.append((Picture.of(photograph, f"Photograph {image_id}"), "photograph"))
        drawn = paint_label_map(truth, self._style, photograph)
        panels.append((Picture.of(drawn, f"Ground truth of {image_id}"), "truth"))
        maps = [truth]
        for each in self._runs:
            predicted = _predict(each.run, each.dataset, image_id)[::step, ::step]
            # Void is not scored, so that the prediction there is not listed either.
            maps.append(np.where(truth == self._style.void, self._style.void, predicted))
            of = "" if len(self._runs) == 1 else f", {each.name}"
            drawn = paint_label_map(predicted, self._style, photograph)
            alt = f"Prediction of {each.name} for {image_id}"
            panels.append((Picture.of(drawn, alt), f"prediction{of}"))
            drawn = paint_errors(truth, predicted, self._style, photograph)
            panels.append(
                (Picture.of(drawn, f"Errors of {each.name} in {image_id}"), f"errors{of}")
            )
        legend = legend_rows(maps, self._style, _LEGEND)
        return Row(image_id=image_id, words=words, panels=panels, legend=legend)


def _predict(run: Run, dataset: ShardDataset, image_id: str) -> LabelMap:
    record = dataset.record(image_id)
    return predict_label_map(run, record.embeddings, record.grid).label_map
