"""The ground truth of a batch, against the label maps of its records."""

from __future__ import annotations

import numpy as np
import torch
from builders.heads import VOID, make_batch, random_records

from vocprep.heads.scoring.measures.borders import border_bands
from vocprep.heads.scoring.truth import true_pixels
from vocprep.labels.targets import STATE_OTHER, STATE_VOID
from vocprep.placement import split_patches


def test_targets_and_label_maps_give_the_class_of_every_pixel():
    records = random_records("val", [(2, 3), (1, 1), (2, 2)])
    batch = make_batch(records)
    true = true_pixels(batch, VOID, borders=True)
    assert true.bands is not None
    patches = batch.padding.shape[1]
    lookup = torch.nn.functional.pad(true.labels, (0, 1), value=-1)
    ids = torch.nn.functional.pad(lookup, (0, 1), value=VOID).gather(1, true.states.long())
    assert (true.states == STATE_OTHER).sum() == len(true.other) > 0
    ids.view(-1)[true.other] = true.other_labels
    assert (true.states[batch.padding.flatten()] == STATE_VOID).all()
    for number, record in enumerate(records):
        own = slice(number * patches, number * patches + len(record.embeddings))
        expected = split_patches(record.label_map).reshape(-1, 1024)
        assert np.array_equal(ids[own].numpy(), expected)
        bands = split_patches(border_bands(record.label_map, VOID)).reshape(-1, 1024)
        assert np.array_equal(true.bands[own].numpy(), bands)
    assert true_pixels(batch, VOID, borders=False).bands is None
