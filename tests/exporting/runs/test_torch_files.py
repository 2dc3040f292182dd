"""``--to torch-export``, read back by ``torch.export.load``."""

from __future__ import annotations

import json
import os
import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from builders.exported_runs import batch_of, picture, predicted, run_block
from builders.processes import forked

import vocprep
from vocprep.exporting.runs.source import RunSource
from vocprep.exporting.runs.torch_files import save_program
from vocprep.heads.predict_image import predict_label_map
from vocprep.placement import split_patches

pytestmark = pytest.mark.slow

GRIDS = [(3, 2), (1, 1), (2, 5)]


@pytest.fixture(scope="module")
def programs(slots: RunSource, tmp_path_factory: pytest.TempPathFactory) -> vocprep.ExportResult:
    out = tmp_path_factory.mktemp("programs")
    return vocprep.export(slots.run.path, "torch-export", out, slots.options)


def test_heads_label_padded_batches_of_embeddings(
    programs: vocprep.ExportResult, slots: RunSource
) -> None:
    embeddings, batch = batch_of(slots, GRIDS)
    told = {"vocprep.json": ""}
    program = torch.export.load(programs.path / "heads.pt2", extra_files=told).module()
    outputs = program(torch.from_numpy(batch), torch.tensor(GRIDS))
    for place, (each, grid) in enumerate(zip(embeddings, GRIDS, strict=True)):
        _, label_map, confidence = (output[place][: len(each)].numpy() for output in outputs)
        expected = predict_label_map(slots.run, each, grid, None, slots.class_weights)
        assert (label_map == split_patches(expected.label_map)).mean() > 0.999
        np.testing.assert_allclose(confidence, split_patches(expected.confidence), atol=1e-5)
    assert json.loads(told["vocprep.json"])["run_id"] == slots.run.config.run_id


def test_pixels_label_pictures_as_predict_does(
    programs: vocprep.ExportResult, slots: RunSource, tmp_path: Path
) -> None:
    program = torch.export.load(programs.path / "pixels.pt2").module()
    for grid in ((4, 6), (1, 2), (2, 1)):
        image = picture(3, grid)
        label_map, confidence = program(torch.from_numpy(image)[None])
        expected_map, expected_confidence = predicted(slots, image, tmp_path)
        assert (label_map[0].numpy() == expected_map).mean() > 0.99
        differences = np.abs(confidence[0].numpy() - expected_confidence)
        assert np.quantile(differences, 0.99) < 1e-3


def test_the_same_run_gives_the_same_bytes(
    programs: vocprep.ExportResult, slots: RunSource, tmp_path: Path
) -> None:
    options = replace(slots.options, parts=("heads",))
    again = vocprep.export(slots.run.path, "torch-export", tmp_path, options)
    first = {file.name: file.sha256 for file in programs.files}
    assert {file.name: file.sha256 for file in again.files}.items() <= first.items()


def test_the_guide_s_lines_label_a_record(
    programs: vocprep.ExportResult,
    slots: RunSource,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    embeddings, _ = batch_of(slots, GRIDS)
    folder = tmp_path / "arrays" / "val"
    folder.mkdir(parents=True)
    np.save(folder / "embeddings.npy", np.concatenate(embeddings))
    np.save(folder / "grids.npy", np.array(GRIDS))
    np.save(folder / "first_patch.npy", np.cumsum([0, *map(len, embeddings)]))
    (tmp_path / "model").symlink_to(programs.path)
    monkeypatch.chdir(tmp_path)
    label_map = run_block("torch.export.load")["label_map"]
    expected = predict_label_map(slots.run, embeddings[0], GRIDS[0], None, slots.class_weights)
    assert (label_map[0].numpy() == split_patches(expected.label_map)).mean() > 0.999


def save_on_a_full_disk(path: Path) -> None:
    """End with exit code 3 where a program does not fit on the disk."""
    program = torch.export.export(torch.nn.Linear(128, 128), (torch.zeros(1, 128),))
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    with pytest.raises(OSError, match="File too large"):
        save_program(program, ("outputs",), {}, path)
    os._exit(3)


def test_a_full_disk_is_an_error_and_no_end_of_the_process(tmp_path: Path) -> None:
    process = forked(save_on_a_full_disk, tmp_path / "heads.pt2")
    process.start()
    process.join()
    assert process.exitcode == 3
