"""The heads as a module to export, before it is exported: every mask head and encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders.exported_runs import SMALL, small_run
from builders.heads import MASK_HEADS

from vocprep.exporting.runs.heads_program import HeadsProgram
from vocprep.heads.predict_image import predict_label_map
from vocprep.heads.runs.class_shares import decoding_of
from vocprep.placement import split_patches

GRIDS = [(2, 3), (1, 1), (4, 2)]


@pytest.mark.parametrize("prior_power", [0, 0.5])
@pytest.mark.parametrize("heads", [*MASK_HEADS, "spikes", "multi-hot"])
def test_a_padded_batch_is_labelled_as_each_picture_alone(
    tmp_path: Path, heads: str, prior_power: float
) -> None:
    others: dict[str, dict[str, Any]] = {
        "spikes": {"encoder": "spikformer"},
        "multi-hot": {"class_loss": "multi_hot"},
    }
    run = small_run(tmp_path / "run", {**SMALL, **{**MASK_HEADS, **others}[heads]})
    if heads == "multi-hot" and prior_power:
        pytest.skip("probabilities of several classes have no prior")
    weights = decoding_of(run, prior_power, "none").class_weights
    draw = np.random.default_rng(3)
    embeddings = [draw.random((ny * nx, 256)).astype(np.float32) for ny, nx in GRIDS]
    batch = torch.full((len(GRIDS), 9, 256), 1e3)
    for row, each in zip(batch, embeddings, strict=True):
        row[: len(each)] = torch.from_numpy(each)
    with torch.inference_mode():
        outputs = HeadsProgram(run.model, weights)(batch, torch.tensor(GRIDS))
    for place, (each, grid) in enumerate(zip(embeddings, GRIDS, strict=True)):
        chances, label_map, confidence = (output[place].numpy() for output in outputs)
        expected = predict_label_map(run, each, grid, None, weights)
        count = grid[0] * grid[1]
        assert (label_map[:count] == split_patches(expected.label_map)).mean() > 0.999
        np.testing.assert_allclose(
            confidence[:count], split_patches(expected.confidence), atol=1e-5
        )
        assert not confidence[count:].any()
        ranked = np.take_along_axis(chances[:count], expected.patch_labels, axis=1)
        np.testing.assert_allclose(ranked, expected.patch_probabilities, atol=1e-5)
