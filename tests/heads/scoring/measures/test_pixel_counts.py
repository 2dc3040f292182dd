"""Entries of pixels, against a count of pixels one by one."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from vocprep.heads.model.mask_heads.pixel_choices import PixelChoices, strongest
from vocprep.heads.scoring.measures.pixel_counts import (
    NOT_SCORED,
    RIGHT,
    WRONG,
    PixelEntries,
    TruePixels,
)
from vocprep.labels.targets import PIXELS, STATE_OTHER, STATE_VOID

PATCHES = 5


def random_truth(rng: np.random.Generator, *, bands: bool) -> tuple[TruePixels, np.ndarray]:
    """Return random patches, some with pixels of fifth classes, and their class ids; void is −9."""
    slots = np.array([1, 2, 4, 4, 0])
    labels = np.where(
        np.arange(4) < slots[:, None],
        rng.permuted(np.arange(8)[None].repeat(PATCHES, axis=0), axis=1)[:, :4],
        -1,
    )
    states = np.stack(
        [
            rng.choice([*range(n), *([STATE_OTHER] if n == 4 else []), STATE_VOID], size=PIXELS)
            for n in slots
        ]
    )
    other = np.flatnonzero(states == STATE_OTHER)
    other_labels = rng.integers(8, 10, size=len(other))
    lookup = np.hstack([labels, np.full((PATCHES, 2), -9)])
    ids = np.take_along_axis(lookup, states, axis=1)
    ids.ravel()[other] = other_labels
    near = torch.from_numpy(rng.integers(0, 3, size=ids.shape).astype(np.uint8)) if bands else None
    true = TruePixels(
        labels=torch.from_numpy(labels),
        states=torch.from_numpy(states.astype(np.uint8)),
        bands=near,
        other=torch.from_numpy(other),
        other_labels=torch.from_numpy(other_labels),
    )
    return true, ids


def naive(true: TruePixels, ids: np.ndarray, predicted: np.ndarray) -> Counter[tuple[int, ...]]:
    bands = np.full(ids.shape, 2) if true.bands is None else true.bands.numpy()
    found: Counter[tuple[int, ...]] = Counter()
    for patch, pixel in np.argwhere(ids >= 0).tolist():
        place = patch, pixel
        found[patch, int(bands[place]), int(ids[place]), int(predicted[place])] += 1
    return found


def summed(entries: PixelEntries) -> Counter[tuple[int, ...]]:
    found: Counter[tuple[int, ...]] = Counter()
    columns = (entries.patch, entries.band, entries.truth, entries.predicted, entries.pixels)
    for *key, pixels in torch.stack(columns, dim=1).tolist():
        found[tuple(key)] += pixels
    return found


@pytest.mark.parametrize("bands", [True, False])
@pytest.mark.parametrize("choices", [1, 3, 20, 3000])
def test_choices_are_counted_pixel_by_pixel(choices: int, bands: bool):
    """Of few choices and of more than numbers of one or two bytes tell apart."""
    rng = np.random.default_rng(choices)
    true, ids = random_truth(rng, bands=bands)
    parts, predicted = [], np.empty(ids.shape, dtype=np.int64)
    for patches in ([3, 0], [1, 2, 4]):
        classes = rng.integers(-1, 10, size=(len(patches), choices))
        chosen = rng.integers(0, choices, size=(len(patches), PIXELS))
        predicted[patches] = np.take_along_axis(classes, chosen, axis=1)
        tensors = [torch.from_numpy(each) for each in (np.array(patches), classes)]
        small = torch.from_numpy(chosen.astype(np.int16))
        parts.append(PixelChoices(patches=tensors[0], classes=tensors[1], chosen=small))
    assert summed(true.entries_of_choices(parts)) == naive(true, ids, predicted)
    for part in parts:
        rows = part.patches.numpy()
        expected = np.where(ids[rows] == predicted[rows], RIGHT, WRONG)
        expected[ids[rows] < 0] = NOT_SCORED
        assert true.outcomes(part).tolist() == expected.tolist()


def test_slots_are_counted_as_the_classes_that_they_are_given():
    rng = np.random.default_rng(0)
    true, ids = random_truth(rng, bands=True)
    given = rng.integers(-1, 8, size=(PATCHES, 4))
    predicted = np.take_along_axis(
        np.pad(given, ((0, 0), (0, 2)), constant_values=-1), true.states.long().numpy(), axis=1
    )
    entries = true.entries_of_slots(torch.from_numpy(given))
    assert summed(entries) == naive(true, ids, predicted)


@pytest.mark.parametrize("number", [1, 2, 5, 300])
def test_the_first_of_the_largest_values_is_chosen(number: int):
    values = torch.randint(0, 4, (3, number, PIXELS)).float()
    largest, place = strongest(values)
    assert torch.equal(largest, values.amax(dim=1))
    assert torch.equal(place.long(), (values == largest.unsqueeze(1)).int().argmax(dim=1))
