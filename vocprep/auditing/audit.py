"""The verb ``audit``: which label maps of a version are likely wrong.

Shape legend: R patches, P patches of a picture, C classes that occur.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vocprep.analysis.duplicates import Duplicates, find_duplicates
from vocprep.auditing.evidence import Believed, Usual, transformation_gains
from vocprep.auditing.maps import blocks, rows_of
from vocprep.auditing.options import AuditOptions
from vocprep.auditing.out_of_fold import deal_folds, predict_out_of_fold
from vocprep.auditing.patches import Patches, label_shares, read_patches
from vocprep.auditing.planted import KINDS, Suspicions, judge
from vocprep.auditing.result import AuditedPicture, AuditResult
from vocprep.errors import UsageError
from vocprep.files.ids import image_id_of
from vocprep.heads.scoring.measures.label_quality import (
    calibrated,
    class_thresholds,
    normalized_margin,
)
from vocprep.progress import NO_PROGRESS, Progress
from vocprep.shards.reader import ShardDataset
from vocprep.storage.places import Place

_LEAST_PICTURES = 8
"""Fewer say nothing of what is usual."""
_MOST_PATCHES = 12
"""That are named of a picture."""
_VOID_DEVIATIONS, _LEAST_DEVIATION = 10.0, 0.01
_SUSPECTED_BELOW = 0.75
"""Quality below which the likeliest error is named."""
_LEAST_GAIN = 0.05
"""Log probability per patch that a transformed map has to gain to be named."""
Doubles = NDArray[np.float64]


def audit(
    shards: str | Place, options: AuditOptions | None = None, progress: Progress = NO_PROGRESS
) -> AuditResult:
    """Return the pictures of a version, those whose labels are likeliest wrong first.

    ``shards`` is a folder or the URL of one in an object store. Small heads are trained on the
    cached embeddings of all folds but one and judge the pictures of that one; no photographs are
    needed. The same version and options give the same result. Raises UsageError for splits that
    there are not and for too few pictures, and what ``ShardDataset.open`` raises.
    """
    options = options or AuditOptions()
    dataset = ShardDataset.open(shards)
    splits = _choose_splits(dataset, options.splits)
    duplicates = find_duplicates(dataset, progress=progress)
    patches = read_patches(dataset, splits, progress)
    folds = deal_folds(_groups(patches.ids, duplicates), options.folds)
    if len(patches.classes) < 2:
        raise UsageError(
            f"{dataset.path}: the labels of {', '.join(splits)} are all of one class or void: "
            "expected two classes or more to tell apart"
        )
    logs = predict_out_of_fold(patches, folds, progress)
    usual = Usual.of(patches, logs)
    suspicions = judge(patches, logs, usual, progress)
    named = _name_transformations(patches, logs)
    quality = _patch_quality(patches, logs)
    outliers = _void_outliers(patches)
    names = [dataset.label_space.class_name(int(place)) for place in patches.classes]
    found = _Found(patches, logs, quality, suspicions)
    pictures = [
        found.picture(number, names, named[number], bool(outliers[number]))
        for number in range(len(patches.ids))
    ]
    return AuditResult(
        content_id=dataset.content_id,
        short_id=dataset.index.short_id,
        folds=options.folds,
        splits=splits,
        pixel_accuracy=_pixel_accuracy(patches, logs),
        top=options.top,
        pictures=tuple(sorted(pictures, key=lambda picture: (picture.quality, picture.id))),
        duplicates=duplicates,
    )


def _choose_splits(dataset: ShardDataset, wanted: Sequence[str] | None) -> tuple[str, ...]:
    """Return the splits to audit; UsageError where there are too few pictures in them."""
    there = sorted({shard.split for shard in dataset.index.shards})
    splits = tuple(there if wanted is None else dict.fromkeys(wanted))
    count = sum(dataset.count(split) for split in splits)  # UsageError where there is none
    if count < _LEAST_PICTURES:
        raise UsageError(
            f"{dataset.path}: {count} pictures in {', '.join(splits) or 'no split'}: expected "
            f"{_LEAST_PICTURES} or more, to learn what is usual; audit more splits, or a larger "
            "version"
        )
    return splits


def _groups(ids: Sequence[str], duplicates: Duplicates) -> list[str]:
    """Return the name of each picture's group: the first id of those that show the same."""
    first = {image_id: image_id for image_id in ids}

    def root(image_id: str) -> str:
        while first.get(image_id, image_id) != image_id:
            image_id = first[image_id]
        return image_id

    found = [*(group.ids for group in duplicates.same), *(pair.ids for pair in duplicates.similar)]
    for record_ids in found:
        roots = sorted({root(image_id_of(record_id)) for record_id in record_ids})
        for other in roots[1:]:
            first[other] = roots[0]
    return [root(image_id) for image_id in ids]


def _pixel_accuracy(patches: Patches, logs: NDArray[np.float16]) -> float:
    right = total = 0.0
    for number in range(len(patches.ids)):
        shares = label_shares(patches, patches.rows(number))
        likeliest = logs[patches.rows(number)].argmax(axis=1)
        right += float(shares[np.arange(len(shares)), likeliest].sum())
        total += float(shares.sum())
    return round(right / max(total, 1e-9), 4)


def _patch_quality(patches: Patches, logs: NDArray[np.float16]) -> Doubles:
    """Return the label quality [R] of all patches; 1 where all is void."""
    count = len(patches.classes)
    sums, areas = np.zeros((2, count))
    for number in range(len(patches.ids)):
        rows = patches.rows(number)
        shares = label_shares(patches, rows)
        sums += (shares * np.exp(logs[rows].astype(np.float32))).sum(axis=0)
        areas += shares.sum(axis=0)
    thresholds = class_thresholds(sums, areas)
    quality = np.ones(len(patches.slots))
    for number in range(len(patches.ids)):
        rows = patches.rows(number)
        shares = label_shares(patches, rows)
        labelled = shares.sum(axis=1, keepdims=True)
        probabilities = calibrated(np.exp(logs[rows].astype(np.float64)), thresholds)
        margins = normalized_margin(shares / np.maximum(labelled, 1e-9), probabilities)
        quality[rows] = np.where(labelled[:, 0] > 0, np.clip(margins, 0, 1), 1)
    return quality


def _void_outliers(patches: Patches) -> NDArray[np.bool_]:
    """Return whether the void of each picture is far above that of the others."""
    void = np.add.reduceat(patches.void.astype(np.float64), patches.starts[:-1])
    parts = void / (1024 * np.diff(patches.starts))
    median = float(np.median(parts))
    deviation = max(1.4826 * float(np.median(np.abs(parts - median))), _LEAST_DEVIATION)
    most = median + _VOID_DEVIATIONS * deviation
    return np.asarray(parts > most)


def _name_transformations(patches: Patches, logs: NDArray[np.float16]) -> list[str | None]:
    """Return of each picture what its map would have to undergo to fit better, if anything."""
    named: list[str | None] = [None] * len(patches.ids)
    for maps in blocks(patches):
        believed = Believed.of(logs[rows_of(patches, maps.pictures.tolist())])
        gains = transformation_gains(maps, believed)
        words, table = list(gains), np.stack(list(gains.values()))
        for picture, best, gain in zip(
            maps.pictures, table.argmax(axis=0), table.max(axis=0), strict=True
        ):
            if gain > _LEAST_GAIN:
                named[picture] = words[best]
    return named


@dataclass(frozen=True)
class _Found:
    """What was found of all pictures."""

    patches: Patches
    logs: NDArray[np.float16]
    quality: Doubles
    suspicions: Suspicions

    def picture(
        self, number: int, names: Sequence[str], fits_better: str | None, void_outlier: bool
    ) -> AuditedPicture:
        """Return what was found of one."""
        patches, rows = self.patches, self.patches.rows(number)
        given, believed, places, confidence = self._disagreement(number)
        kinds = self.suspicions.kinds[number]
        quality = float(self.suspicions.quality[number])
        void = patches.void[rows].mean() / 1024
        return AuditedPicture(
            id=patches.ids[number],
            split=patches.splits[number],
            quality=round(quality, 4),
            suspected=KINDS[int(kinds.argmax())] if quality < _SUSPECTED_BELOW else None,
            given=None if given is None else names[given],
            believed=None if believed is None else names[believed],
            confidence=round(confidence, 4),
            patches=places,
            fits_better=fits_better,
            other_maps_fit_better=round(float(self.suspicions.ranks[number]), 4),
            void_percent=round(100 * float(void), 2),
            void_outlier=void_outlier,
            patch_quality=tuple(round(float(each), 3) for each in self.quality[rows]),
        )

    def _disagreement(self, number: int) -> tuple[int | None, int | None, tuple[int, ...], float]:
        """Return the class given and the one believed where they differ most, where, how sure."""
        rows = self.patches.rows(number)
        shares = label_shares(self.patches, rows)
        probabilities = np.exp(self.logs[rows].astype(np.float64))
        given, believed = shares.argmax(axis=1), probabilities.argmax(axis=1)
        every = np.arange(len(shares))
        excess = probabilities[every, believed] - probabilities[every, given]
        differs = (given != believed) & (shares.sum(axis=1) > 0)
        pairs = sorted({(int(given[n]), int(believed[n])) for n in np.flatnonzero(differs)})
        if not pairs:
            return None, None, (), 0.0

        def of_pair(pair: tuple[int, int]) -> NDArray[np.bool_]:
            found: NDArray[np.bool_] = differs & (given == pair[0]) & (believed == pair[1])
            return found

        best = max(pairs, key=lambda pair: (float(excess[of_pair(pair)].sum()), pair))
        places = np.flatnonzero(of_pair(best))
        confidence = float(probabilities[places, best[1]].mean())
        surest = places[np.argsort(-excess[places], kind="stable")][:_MOST_PATCHES]
        return best[0], best[1], tuple(sorted(int(place) for place in surest)), confidence
