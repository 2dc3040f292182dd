"""Notes on what a training was given, which qualify its scores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vocprep.geometry import PATCH
from vocprep.heads.runs.options import TrainOptions
from vocprep.shards.reader import ShardDataset


def notes_on(
    dataset: ShardDataset, options: TrainOptions, run_dir: Path, done: int
) -> Iterator[str]:
    """Yield notes that qualify the scores; nothing where the training has ended."""
    if done == options.epochs:
        return
    if options.resume and not done:
        yield f"nothing to resume in {run_dir}: this training is a new one"
    if not options.val_split and TrainOptions.val_split not in dataset.splits:
        others = ", ".join(split for split in dataset.splits if split != options.train_split)
        yield (
            f"no split {TrainOptions.val_split!r} in {dataset.path}: the heads are trained on "
            f"{options.train_split!r} without validation, and the run keeps the last epoch"
            + f"; --val-split chooses another of {others}"
            * bool(others)
        )
    if options.val_split == options.train_split:
        yield "val scores are of the split that is trained on: they are too high"
    if dataset.index.quarantined:
        missing = f"{dataset.index.quarantined:,} quarantined images are not in {dataset.path}"
        yield f"{missing}; see quarantine.jsonl"
    if options.flip and "flip" not in dataset.index.recipe.views:
        yield f"no mirrored views in {dataset.path}: build-shards --views flip makes them"
    has_crops = dataset.index.recipe.crops is not None
    if options.crops and not has_crops:
        yield f"no crops in {dataset.path}: build-shards --views crops:N,SEED makes them"
    if has_crops and options.crops is None and not options.flip:
        yield f"crops in {dataset.path} are left out as mirrored views are: --set crops=true"
    if options.preset == "wide" and dataset.index.recipe.windows == (PATCH,):
        yield f"{dataset.path} has no wide embeddings: build-shards --windows makes them"
