"""A run that the viewer shows: scored in the background, and predictions of single pictures.

Shape legend: N pictures of the version's catalogue.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vocprep.heads.model.losses import losses_by_image
from vocprep.heads.predict_image import LabelMapPrediction, predict_label_map
from vocprep.heads.runs.run import Run
from vocprep.heads.scoring.measures.image_scores import ImageCounter
from vocprep.heads.scoring.measures.metrics import ConfusionMatrix, constant_prediction
from vocprep.heads.scoring.measures.oracles import RowKind, chance_name
from vocprep.heads.scoring.measures.pixel_counts import PixelEntries
from vocprep.heads.scoring.rows import RowCounters, RowPixels
from vocprep.heads.scoring.split_pass import ScoredBatch, run_batches
from vocprep.heads.scoring.truth import true_pixels
from vocprep.options import LoaderOptions
from vocprep.pages.viewer.queries import NotFoundError
from vocprep.pages.viewer.shown.background import ASKED_SECONDS, Task
from vocprep.pages.viewer.shown.versions import Kept, ShownVersion
from vocprep.pages.viewer.shown.wrong_pixels import WrongPixelCounter, WrongPixels
from vocprep.validation import printable

Floats = NDArray[np.float32]
_BATCH = 16
"""Pictures of a step: a smaller one leaves more of the machine to the page."""
_MOST_PREDICTIONS = 64 << 20
"""Bytes of label maps and confidences that are kept."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SplitScores:
    """What a pass over one split has counted."""

    pixels: dict[RowKind, RowPixels]
    """By kind of row, the model first."""
    mask_ious: dict[RowKind, float]
    """Of the rows that draw masks of their own."""
    chance: str
    """The name of the constant row, which tells what it predicts."""
    wrong: WrongPixels

    @property
    def model(self) -> ConfusionMatrix:
        """The model's own confusion matrix."""
        return self.pixels[RowKind.MODEL].all


class ShownRun:
    """A run with the version that it is scored on."""

    def __init__(self, key: str, run: Run, version: ShownVersion, device: torch.device) -> None:
        self.key, self.run, self.version = key, run, version
        count = len(version.catalogue)
        self.accuracies: Floats = np.full(count, np.nan, dtype=np.float32)
        self.mious: Floats = np.full(count, np.nan, dtype=np.float32)
        self.losses: Floats = np.full(count, np.nan, dtype=np.float32)
        self.splits: dict[str, SplitScores] = {}
        self.name = printable(run.path.resolve().name)
        self.scoring: Task[bool] = Task(
            self._score, version.columns.total, f"the scores of run {self.name}", "scoring"
        )
        run.model.to(device)
        self._predictions: Kept[int, LabelMapPrediction] = Kept(_MOST_PREDICTIONS)
        self._lock = threading.Lock()
        self._joined: dict[str, NDArray[np.intp]] = {}

    def predict(self, place: int) -> LabelMapPrediction:
        """Return the run's prediction of a picture of its version."""
        found = self._predictions.get(place)
        if found is not None:
            return found
        record = self.version.record(place)
        with self._lock:  # each of them takes all cores
            found = predict_label_map(self.run, record.embeddings, record.grid)
        size = found.label_map.nbytes + found.confidence.nbytes
        return self._predictions.put(place, found, size)

    def place(self, record_id: str) -> int:
        """Return the place of a picture in the run's version; NotFoundError if it is not there."""
        return self.version.place(record_id)

    def joined(self, version: ShownVersion, values: Floats) -> Floats:
        """Return values [N] of the run's version for the pictures of another, by their ids."""
        if version is self.version:
            return values
        if version.key not in self._joined:
            places = self.version.catalogue.places
            found = [places.get(record_id, -1) for record_id in version.catalogue.ids]
            self._joined[version.key] = np.array(found, dtype=np.intp)
        at = self._joined[version.key]
        taken: Floats = np.where(at >= 0, np.append(values, np.float32(np.nan))[at], np.nan)
        return taken

    def scores_of(self, split: str) -> SplitScores:
        """Return what was counted of a split; NotReadyError while it is not."""
        if split not in self.splits:
            self.scoring.finished(ASKED_SECONDS)  # says how far it is, or why it has failed
        if split not in self.splits:
            raise NotFoundError(f"split {split!r}: holds no record that was scored")
        return self.splits[split]

    def _score(self, task: Task[bool]) -> bool:
        """Score every split, the one that the run was validated on first."""
        first = self.run.config.options.val_split
        names = sorted(self.version.dataset.splits, key=lambda name: (name != first, name))
        counted = {shard.split for shard in self.version.dataset.index.shards}
        for name in names:
            if name in counted:
                self.splits[name] = self._score_split(name, task)
        return True

    @torch.inference_mode()
    def _score_split(self, split: str, task: Task[bool]) -> SplitScores:
        space, model = self.run.config.labels, self.run.model
        loader = self.version.dataset.loader(
            split, LoaderOptions(batch_size=_BATCH, mode="streaming", label_maps=True)
        )
        rows, wrong = RowCounters(model.config.outputs, model.device), WrongPixelCounter()
        for scored in run_batches(model, loader):
            true = true_pixels(scored.batch, space.void, borders=True)
            entries = true.entries_of_choices(scored.pixels.choices)
            rows.add(scored, true, entries)
            places = self._count_pictures(scored, entries)
            wrong.add(places, entries, scored.batch.padding.shape[1])
            task.advance(len(places))
        pixels = rows.pixels()
        majority, of_split = self._most_frequent(split)
        parts = pixels[RowKind.MODEL].parts
        everywhere = RowPixels(parts=[constant_prediction(part, majority) for part in parts])
        return SplitScores(
            pixels={**pixels, RowKind.MAJORITY: everywhere},
            mask_ious=rows.mask_ious(),
            chance=chance_name(space.names.get(majority, str(majority)), of_split),
            wrong=wrong.counts(),
        )

    def _count_pictures(self, scored: ScoredBatch, entries: PixelEntries) -> NDArray[np.int64]:
        """Keep the scores of a batch's pictures, and return their places."""
        config, ids = self.run.model.config, scored.batch.image_ids
        losses = losses_by_image(scored.class_logits, scored.mask_logits, scored.batch, config)
        counter = ImageCounter(config.outputs)
        counter.add(ids, entries, scored.batch.padding.shape[1], losses.total)
        for score in counter.confusions().scores:
            place = self.version.catalogue.place(score.image_id)
            self.accuracies[place] = score.pixel_accuracy
            self.mious[place] = score.miou
            self.losses[place] = score.loss
        return np.array([self.version.catalogue.place(i) for i in ids], dtype=np.int64)

    def _most_frequent(self, split: str) -> tuple[int, str]:
        """Return the class with the most pixels of the split that the run was trained on, and that.

        It is of ``split`` where the version does not hold the other.
        """
        trained_on = self.run.config.options.train_split
        names = self.version.catalogue.split_names
        of_split = trained_on if trained_on in names else split
        chosen = self.version.catalogue.of_split(of_split)
        totals = self.version.columns.result().totals(chosen)
        pixels = {class_id: count for class_id, count, _ in totals}
        pixels.pop(self.version.space.void, None)
        return max(pixels, key=lambda each: (pixels[each], -each), default=0), of_split

    def to_json(self) -> dict[str, Any]:
        """Return what the page shows of the run, and how far its scores are."""
        told = self.scoring.to_json()
        return {
            "key": self.key,
            "name": self.name,
            "epoch": self.run.epoch,
            "version": self.version.key,
            "note": self.run.unfinished,
            "state": told["state"],
            "scored": told["done"],
            "total": told["total"],
            "error": told["error"],
        }
