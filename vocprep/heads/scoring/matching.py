"""Which dataset versions a run can be scored on, and which of them may be compared."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from vocprep.errors import RunError, UsageError
from vocprep.files.ids import is_plain
from vocprep.heads.runs.options import TrainOptions, require_split
from vocprep.heads.runs.run import Run
from vocprep.recipe import Recipe, differing_fields, joined_differences
from vocprep.shards.reader import ShardDataset

MUST_AGREE = ("backbone", "weights_sha256", "windows", "layers", "normalisation", "schema")
"""Recipe fields without which a run's heads mean nothing on a dataset version."""
MAY_DIFFER = ("dataset", "geometry", "embedding_dtype", "precision")
"""Recipe fields whose difference is noted."""


def choose_dataset(run: Run, datasets: Sequence[ShardDataset]) -> ShardDataset:
    """Return the dataset version that the run was trained on, else the first that fits it.

    Raises RunError, as ``check_fits`` does, when none does.
    """
    own = [d for d in datasets if d.index.content_id == run.config.content_id]
    candidates = [*own, *datasets]
    fitting = (d for d in candidates if not _blocking_fields(run, d.index.recipe))
    chosen = next(fitting, candidates[0])
    check_fits(run, chosen.index.recipe)
    return chosen


def check_fits(run: Run, recipe: Recipe) -> tuple[str, ...]:
    """Return notes on minor differences between a dataset version's recipe and the run's.

    Raises RunError naming the fields where ``MUST_AGREE`` do not.
    """
    blocking = _blocking_fields(run, recipe)
    if blocking:
        raise RunError(
            f"{run.path}: the run was trained on other embeddings or labels than the dataset "
            f"holds, of the run and of the dataset {joined_differences(blocking)}; "
            "build shards with the run's recipe, or train on these"
        )
    minor = _differing(run.config.recipe, recipe, MAY_DIFFER)
    return tuple(f"trained and evaluated with different {line}" for line in minor)


def default_split(run: Run, dataset: ShardDataset) -> str:
    """Return the split of a version that a run is scored on unless one is named.

    It is ``val``; where the version has none, the split that the run was validated on, else the one
    that it was trained on.
    """
    options = run.config.options
    names = (TrainOptions.val_split, options.val_split, options.train_split)
    return next((name for name in names if name in dataset.splits), TrainOptions.val_split)


def require_one_truth(datasets: Sequence[ShardDataset], split: str) -> None:
    """Raise UsageError when dataset versions hold different images or ground truth in a split.

    Scores on them must not stand side by side.
    """
    for dataset in datasets:
        require_split(dataset.splits, split, "split")
    for dataset in datasets[1:]:
        if not _has_same_truth(datasets[0], dataset, split):
            raise UsageError(
                f"{dataset.path}: expected the images, geometry and labels of {datasets[0].path} "
                f"in split {split}, found others; evaluate the runs one by one"
            )


def _has_same_truth(one: ShardDataset, other: ShardDataset, split: str) -> bool:
    """Return whether a split has the same images and ground truth in two dataset versions.

    Their samples are read only where the identities do not tell.
    """
    identities = [
        (each.source_id, each.targets_id, each.recipe.splits[split])
        for each in (one.index, other.index)
    ]
    return identities[0] == identities[1] or _truth(one, split) == _truth(other, split)


def _truth(dataset: ShardDataset, split: str) -> str:
    """Return a digest of the images and the ground truth of a split, mirrored views left out."""
    digest = hashlib.sha256()
    for sample in dataset.version.stream_samples():
        if sample.split == split and is_plain(sample.id):
            fields = (sample.id, sample.image_sha256, sample.targets_sha256)
            digest.update("\0".join((*fields, "")).encode())
    return digest.hexdigest()


def _blocking_fields(run: Run, recipe: Recipe) -> list[str]:
    return _differing(run.config.recipe, recipe, MUST_AGREE)


def _differing(trained: Recipe, given: Recipe, names: Sequence[str]) -> list[str]:
    """Return one line per field, among ``names``, in which two recipes differ."""
    one, other = trained.to_json(), given.to_json()
    return differing_fields(
        {name: one[name] for name in names}, {name: other[name] for name in names}
    )
