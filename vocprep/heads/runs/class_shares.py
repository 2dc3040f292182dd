"""The correction for classes that were trained on more often than others, by a run's class shares.

A class's share is that of the pixels of all slots that the run was trained on, mirrored views
included: what the heads have learnt to expect.

Shape legend: C classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vocprep.errors import UsageError
from vocprep.heads.model.config import Tta
from vocprep.heads.runs.run import Run
from vocprep.shards.reader import ShardDataset
from vocprep.views import ViewChoice

_ROWS = 1 << 20
"""Patches that are counted at once."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoding:
    """How a run's outputs become predictions."""

    prior_power: float = 0.0
    tta: Tta = "none"
    class_weights: Tensor | None = None
    """float32 [C] on the CPU; None with ``prior_power`` 0."""
    notes: tuple[str, ...] = ()
    """What is told of it beside scores."""

    def weights_on(self, device: torch.device) -> Tensor | None:
        """Return the class weights on a device."""
        return None if self.class_weights is None else self.class_weights.to(device)


def decoding_of(run: Run, prior_power: float, tta: Tta) -> Decoding:
    """Return how a run predicts; UsageError where it has no class shares for ``prior_power``."""
    if prior_power and run.config.class_pixels is None:
        raise UsageError(
            f"prior_power {prior_power:g}: {run.path} keeps no class shares, as older runs do not; "
            "leave --prior-power out, or train again (evaluate counts them in the shards)"
        )
    return _decoding(run, prior_power, tta, run.config.class_pixels or {}, ())


def decoding_for(run: Run, dataset: ShardDataset, prior_power: float, tta: Tta) -> Decoding:
    """Return how a run predicts the records of a dataset version.

    The classes' shares of a run that keeps none are counted in the version's split that it was
    trained on. Raises UsageError where there is no such split, or no mirrored view for ``tta``.
    """
    if tta == "flip" and "flip" not in dataset.index.recipe.views:
        raise UsageError(
            f"tta flip: {dataset.path} holds no mirrored views; build the shards with --views "
            "flip, or leave --tta out"
        )
    pixels: Mapping[int, int] = run.config.class_pixels or {}
    notes: tuple[str, ...] = ()
    if prior_power and run.config.class_pixels is None:
        split = run.config.options.train_split
        if split not in dataset.splits:
            raise UsageError(
                f"prior_power {prior_power:g}: {run.path} keeps no class shares, as older runs do "
                f"not, and {dataset.path} has no split {split!r} to count them in; give the shards "
                "that it was trained on, or leave --prior-power out"
            )
        pixels = count_class_pixels(dataset, split, all_views=run.config.options.drawn_views)
        notes = (f"the classes' shares were counted in split {split!r} of {dataset.path}",)
    return _decoding(run, prior_power, tta, pixels, notes)


def _decoding(
    run: Run, prior_power: float, tta: Tta, pixels: Mapping[int, int], notes: tuple[str, ...]
) -> Decoding:
    if prior_power and run.config.heads.class_loss == "multi_hot":
        raise UsageError(
            f"prior_power {prior_power:g}: {run.path} was trained with class_loss multi_hot, whose "
            "classes' probabilities do not add up to 1: expected 0; leave --prior-power out"
        )
    if prior_power:
        told = (
            f"class probabilities are divided by the classes' shares to the power {prior_power:g}"
        )
        notes = (told, *notes)
    if tta == "flip":
        notes = ("predictions are means of the plain and the mirrored view", *notes)
    return Decoding(
        prior_power=prior_power,
        tta=tta,
        class_weights=class_weights(pixels, run.config.heads.outputs, prior_power),
        notes=notes,
    )


def class_weights(pixels: Mapping[int, int], classes: int, power: float) -> Tensor | None:
    """Return share^−power of each class: float32 [C] of 1 or more; None for power 0.

    ``pixels`` are those of the classes trained on. A class without any has the weight 1, as if it
    were all that there is: the heads never saw it, and nothing raises it above the others.

    >>> class_weights({0: 75, 2: 25}, 3, 0.5)
    tensor([1.1547, 1.0000, 2.0000])
    """
    if not power:
        return None
    total = sum(pixels.values())
    weights = [(total / pixels[i]) ** power if pixels.get(i) else 1.0 for i in range(classes)]
    return torch.tensor(weights)


def count_class_pixels(
    dataset: ShardDataset, split: str, *, all_views: ViewChoice
) -> dict[int, int]:
    """Return the pixels of each class in the slots of a split's patches, the classes in order."""
    counts: Counter[int] = Counter()
    for name in dataset.shard_names(split):
        for record in dataset.read_shard(name, all_views=all_views):
            counts.update(pixels_by_class(record.slot_labels, record.slot_pixels))
    return dict(sorted(counts.items()))


def pixels_by_class(
    slot_labels: NDArray[np.int16], slot_pixels: NDArray[np.integer[Any]]
) -> dict[int, int]:
    """Return the pixels of each class in the slots of patches, of labels and pixels [N, 4].

    >>> labels = np.array([[7, 2, -1, -1], [2, -1, -1, -1]])
    >>> pixels_by_class(labels, np.array([[9, 1, 0, 0], [5, 0, 0, 0]]))
    {2: 6, 7: 9}
    """
    counts = np.zeros(int(slot_labels.max(initial=0)) + 2)
    for start in range(0, len(slot_labels), _ROWS):
        places = slot_labels[start : start + _ROWS].astype(np.intp).ravel() + 1
        counts += np.bincount(places, slot_pixels[start : start + _ROWS].ravel(), len(counts))
    return {int(place): int(counts[place + 1]) for place in np.flatnonzero(counts[1:])}
