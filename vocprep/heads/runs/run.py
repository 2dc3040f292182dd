"""A run: a folder with trained heads and all that is needed to use them.

``run.json`` says what the run is and never changes while it lasts, ``options.toml`` how to train
another like it; ``metrics.jsonl`` is its course; ``model.safetensors`` is its latest scored state,
replaced whole, and names the ``run.json`` that it belongs to. A run can be used from its first
score on. ``checkpoint.safetensors`` is there while it is trained, to go on from.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from vocprep.errors import RunError, UsageError
from vocprep.files import TEMPORARY_PREFIX, write_atomic, write_json
from vocprep.heads.model.tfdet import TFDetHeads
from vocprep.heads.runs.config import RunConfig
from vocprep.heads.runs.history import HISTORY_FILE
from vocprep.heads.runs.presets import differing_options, options_toml
from vocprep.heads.runs.tensors import check_tensors, read_tensors, write_tensors
from vocprep.recipe import differing_fields

CONFIG_FILE = "run.json"
MODEL_FILE = "model.safetensors"
CHECKPOINT_FILE = "checkpoint.safetensors"
OPTIONS_FILE = "options.toml"
OLD_OPTIONS_FILE = "recipe.toml"
"""Its name up to format 3."""
CURVES_FILE = "curves.png"
EVENTS_DIR = "tensorboard"
RUN_FILES = (
    *(CONFIG_FILE, MODEL_FILE, CHECKPOINT_FILE, OPTIONS_FILE, OLD_OPTIONS_FILE),
    *(HISTORY_FILE, CURVES_FILE),
)


@dataclass(frozen=True, kw_only=True)
class Run:
    """Trained heads, ready for use."""

    path: Path
    config: RunConfig
    model: TFDetHeads
    """In eval mode."""
    epoch: int
    """How many epochs the weights have seen."""

    @property
    def unfinished(self) -> str | None:
        """What there is to know of a run whose training has not ended; None for others."""
        epochs = self.config.options.epochs
        if self.epoch == epochs:
            return None
        return f"epoch {self.epoch} of {epochs}: the training has not ended"


def holds_run(run_dir: Path) -> bool:
    """Say whether a training in this folder has left weights or a checkpoint."""
    return _is_ours(run_dir) and any(
        (run_dir / name).is_file() for name in (MODEL_FILE, CHECKPOINT_FILE)
    )


def prepare_run_dir(run_dir: Path, config: RunConfig) -> RunConfig:
    """Make the folder ready for a training and return the configuration of its run.

    A new run has its ``run.json`` written. What a training left that ended before its first
    checkpoint is no run and is replaced. With ``resume`` a run that is there stays, and its
    configuration is returned. Raises UsageError, touching nothing, when the folder holds other
    things, a run and neither ``overwrite`` nor ``resume`` is on, or a run of other data or of
    other options than the one to go on with.
    """
    if run_dir.exists() and not run_dir.is_dir():
        raise UsageError(f"{run_dir}: expected a folder for the run, found a file; choose another")
    names = {path.name for path in run_dir.iterdir()} if run_dir.exists() else set()
    unfinished = {name for name in names if name.startswith(TEMPORARY_PREFIX)}
    present = names - unfinished
    if CONFIG_FILE in present and not _is_ours(run_dir):
        raise UsageError(
            f"{run_dir / CONFIG_FILE}: expected one that `vocprep train` wrote, found another or a "
            "damaged one, and so nothing here is replaced; choose another folder"
        )
    if present and CONFIG_FILE not in present:
        raise UsageError(
            f"{run_dir}: expected a new or empty folder for the run, found "
            f"{min(present, key=lambda name: (name.startswith('.'), name))!r} in it; choose another"
        )
    found = [name for name in RUN_FILES if name in present]
    is_run = holds_run(run_dir)
    # As asked for now: the options that a run began with may not have said so.
    goes_on = is_run and config.options.resume
    if goes_on:
        config = _continued(run_dir, config)
    elif is_run and not config.options.overwrite:
        raise UsageError(
            f"{run_dir}: expected a folder without a run, found {', '.join(found)}; choose another "
            "folder, pass --resume to go on with it or --overwrite to replace it"
        )
    for name in unfinished:
        (run_dir / name).unlink()
    if not goes_on:
        _begin(run_dir, config, found)
    return config


def _is_ours(run_dir: Path) -> bool:
    """Say whether a training has written the folder's ``run.json``."""
    try:
        value = json.loads((run_dir / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(value, dict) and "run_format_version" in value


def _begin(run_dir: Path, config: RunConfig, replaced: list[str]) -> None:
    """Take an earlier run's files away and write those that a run begins with.

    There is a ``run.json`` at every moment of it: without one, what is left when it is killed would
    be a stranger's folder to the next training.
    """
    files = [run_dir / name for name in replaced if name != CONFIG_FILE]
    if replaced:
        files += (run_dir / EVENTS_DIR).glob("events.out.tfevents.*")
    for path in files:
        path.unlink()
    write_json(run_dir / CONFIG_FILE, config.to_json())
    write_atomic(run_dir / OPTIONS_FILE, options_toml(config.options).encode())


def _continued(run_dir: Path, config: RunConfig) -> RunConfig:
    """Return the configuration of the folder's run; UsageError where it is not this one's."""
    begun = read_config(run_dir)
    differing = differing_options(begun.options, config.options)
    for name in ("content_id", "source_id", "recipe"):
        one, other = ({name: side.to_json()[name]} for side in (begun, config))
        differing += differing_fields(one, other)
    if differing:
        options_file = OPTIONS_FILE if begun.format_version > 3 else OLD_OPTIONS_FILE
        raise UsageError(
            f"{run_dir}: expected a run of this data and these options to go on with, found and "
            f"given {'; '.join(differing)}; leave the differing options out (the run's own are in "
            f"{run_dir / options_file}) or choose another folder"
        )
    return begun


def save_weights(run_dir: Path, config: RunConfig, model: TFDetHeads, epoch: int) -> None:
    """Replace the run's ``model.safetensors`` by the model's present state."""
    write_tensors(run_dir / MODEL_FILE, config.run_id, model.state_dict(), epoch)


def load_run(run_dir: Path, device: torch.device | str = "cpu") -> Run:
    """Open a run folder: configuration and latest weights, checked against each other.

    Raises RunError when a file is missing, cannot be read, or does not fit the others.
    """
    config = read_config(run_dir)
    path = run_dir / MODEL_FILE
    if not path.is_file():
        raise RunError(
            f"{path}: expected the run's weights, found no file; training has not reached its "
            "first score, train again or go on with --resume"
        )
    epoch, state = read_tensors(path, config.run_id)
    with torch.random.fork_rng(devices=[]):
        model = TFDetHeads.from_config(config.heads)
    expected = model.state_dict()
    if config.format_version == 1:  # which knew no standardising: its heads do none
        added = ("standardise.mean", "standardise.std")
        state = {**state, **{name: expected[name] for name in added}}
    check_tensors(path, expected=expected, found=state)
    model.load_state_dict(state)
    return Run(path=run_dir, config=config, model=model.to(device).eval(), epoch=epoch)


def read_config(run_dir: Path) -> RunConfig:
    """Return what a run folder's ``run.json`` says; RunError when it is missing or unfit."""
    path = run_dir / CONFIG_FILE
    if not path.is_file():
        raise RunError(
            f"{run_dir}: expected a run folder, found no {CONFIG_FILE} in it; give the folder that "
            "`vocprep train` wrote"
        )
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path}: cannot be read as JSON ({error}); train again, in another folder"
        ) from error
    try:
        return RunConfig.from_json(value)
    except RunError as error:
        raise RunError(f"{path}: {error}; train again with this version") from error
