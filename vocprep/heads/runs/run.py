"""A run: a folder with trained heads and everything that is needed to use them.

``run.json`` is the run's configuration and does not change while it lasts; ``options.toml`` trains
another like it; ``metrics.jsonl`` is its log; ``model.safetensors`` its latest validated weights,
replaced whole; ``weights.json`` where the backbone's weights were. A run can be used from its first
validation on. ``checkpoint.safetensors`` is there while it is trained, for ``--resume``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vocprep.errors import RunError, UsageError
from vocprep.features.weights import WeightsOrigin
from vocprep.files import TEMPORARY_PREFIX, read_json, remove_path, write_atomic, write_json
from vocprep.heads.model.tfdet import TFDetHeads
from vocprep.heads.runs.config import RunConfig
from vocprep.heads.runs.log import EVENTS_DIR, HISTORY_FILE
from vocprep.heads.runs.options import TrainOptions
from vocprep.heads.runs.presets import differing_options, load_options, options_toml
from vocprep.heads.runs.state import CHECKPOINT_FILE, MODEL_FILE, check_tensors, read_tensors
from vocprep.recipe import differing_fields
from vocprep.validation import explain

CONFIG_FILE = "run.json"
OPTIONS_FILE = "options.toml"
OLD_OPTIONS_FILE = "recipe.toml"
"""Its name up to format 3."""
WEIGHTS_FILE = "weights.json"
CURVES_FILE = "curves.png"
RUN_FILES = (
    *(CONFIG_FILE, MODEL_FILE, CHECKPOINT_FILE, OPTIONS_FILE, OLD_OPTIONS_FILE),
    *(HISTORY_FILE, WEIGHTS_FILE, CURVES_FILE),
)


@dataclass(frozen=True, kw_only=True)
class Run:
    """Trained heads, ready for use."""

    path: Path
    config: RunConfig
    model: TFDetHeads
    """In eval mode."""
    epoch: int
    """Epochs that the weights were trained for."""

    def __repr__(self) -> str:
        options = self.config.options
        return (
            f"Run('{self.path}': preset {options.preset}, encoder {options.encoder}, epoch "
            f"{self.epoch} of {options.epochs})"
        )

    @property
    def unfinished(self) -> str | None:
        """A note on a run whose training has not ended; None for others."""
        epochs = self.config.options.epochs
        if self.epoch == epochs:
            return None
        return f"epoch {self.epoch} of {epochs}: the training has not ended"


def load_run(run_dir: str | Path, device: torch.device | str = "cpu") -> Run:
    """Open a run folder: configuration and latest weights, checked against each other.

    Raises RunError when a file is missing, cannot be read, or does not fit the others.
    """
    run_dir = Path(run_dir)
    config = read_config(run_dir)
    path = run_dir / MODEL_FILE
    if not path.is_file():
        raise RunError(
            f"{path}: expected the run's weights, found no file; training has not reached its "
            "first validation, train again or continue with --resume"
        )
    epoch, state = read_tensors(path, config.run_id)
    with torch.random.fork_rng(devices=[]):
        model = TFDetHeads.from_config(config.heads)
    expected = model.state_dict()
    if config.format_version == 1:  # which had no standardising: its heads do none
        added = ("standardise.mean", "standardise.std")
        state = {**state, **{name: expected[name] for name in added}}
    check_tensors(path, expected=expected, found=state)
    model.load_state_dict(state)
    return Run(path=run_dir, config=config, model=model.to(device).eval(), epoch=epoch)


def read_config(run_dir: Path) -> RunConfig:
    """Return the configuration in a folder's ``run.json``; RunError when missing or unfit."""
    path = run_dir / CONFIG_FILE
    if not path.is_file():
        raise RunError(
            f"{run_dir}: expected a run folder, found no {CONFIG_FILE} in it; give the folder that "
            "`vocprep train` wrote"
        )
    try:
        value = read_json(path)
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path}: cannot be read as JSON ({explain(error)}); train again, in another folder"
        ) from error
    try:
        return RunConfig.from_json(value)
    except RunError as error:
        raise RunError(f"{path}: {error}; train again with this version") from error


def options_for(
    run_dir: str | Path,
    preset: str | Path | None = None,
    settings: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
) -> TrainOptions:
    """Return the options to train into a folder with: those of ``load_options``.

    Without a preset they are the default's, or, where ``overrides`` have ``resume``, those of the
    run that the folder holds.
    """
    resumes = (overrides or {}).get("resume", False)
    if preset is None and resumes and holds_run(Path(run_dir)):
        return load_options(read_config(Path(run_dir)).options, settings, overrides)
    return load_options(preset or TrainOptions.preset, settings, overrides)


def holds_run(run_dir: Path) -> bool:
    """Return whether a training in this folder has left weights or a checkpoint."""
    return _is_ours(run_dir) and any(
        (run_dir / name).is_file() for name in (MODEL_FILE, CHECKPOINT_FILE)
    )


def begin_or_resume(run_dir: Path, config: RunConfig, origin: WeightsOrigin | None) -> RunConfig:
    """Begin a run in a folder, or resume the one that it holds, and return its configuration.

    A training that ended before its first checkpoint left no run: its files are replaced. Raises
    UsageError, changing nothing, when the folder holds other files, a run and neither ``overwrite``
    nor ``resume`` is on, or, with ``resume``, a run of other data or other options.
    """
    if run_dir.exists() and not run_dir.is_dir():
        raise UsageError(f"{run_dir}: expected a folder for the run, found a file; choose another")
    names = {path.name for path in run_dir.iterdir()} if run_dir.exists() else set()
    unfinished = {name for name in names if name.startswith(TEMPORARY_PREFIX)}
    _refuse_foreign_files(run_dir, names - unfinished)
    found = [name for name in RUN_FILES if name in names]
    # As in this training's options: the run may have begun without ``resume``.
    resumes = holds_run(run_dir) and config.options.resume
    if resumes:
        config = _resume(run_dir, config)
    elif holds_run(run_dir) and not config.options.overwrite:
        raise UsageError(
            f"{run_dir}: expected a folder without a run, found {', '.join(found)}; choose another "
            "folder, pass --resume to go on with it or --overwrite to replace it"
        )
    for name in unfinished:
        remove_path(run_dir / name)
    if not resumes:
        _begin(run_dir, config, found)
    if origin is not None:
        origin.write(run_dir / WEIGHTS_FILE)
    return config


def _refuse_foreign_files(run_dir: Path, names: set[str]) -> None:
    """Raise UsageError when a folder's files are not those of a run."""
    if CONFIG_FILE in names and not _is_ours(run_dir):
        raise UsageError(
            f"{run_dir / CONFIG_FILE}: expected one that `vocprep train` wrote, found another or a "
            "damaged one, and so nothing here is replaced; choose another folder"
        )
    if names and CONFIG_FILE not in names:
        raise UsageError(
            f"{run_dir}: expected a new or empty folder for the run, found "
            f"{min(names, key=lambda name: (name.startswith('.'), name))!r} in it; choose another"
        )


def _is_ours(run_dir: Path) -> bool:
    """Return whether a training has written the folder's ``run.json``."""
    try:
        value = read_json(run_dir / CONFIG_FILE)
    except (OSError, ValueError):
        return False
    return isinstance(value, dict) and "run_format_version" in value


def _begin(run_dir: Path, config: RunConfig, replaced: Sequence[str]) -> None:
    """Remove an earlier run's files and write those that a run begins with.

    ``run.json`` is there at every moment: without it, the files of a training that is killed here
    would count as foreign ones in the next.
    """
    files = [run_dir / name for name in replaced if name != CONFIG_FILE]
    if replaced:
        files += (run_dir / EVENTS_DIR).glob("events.out.tfevents.*")
    for path in files:
        path.unlink()
    write_json(run_dir / CONFIG_FILE, config.to_json())
    write_atomic(run_dir / OPTIONS_FILE, options_toml(config.options).encode())


def _resume(run_dir: Path, config: RunConfig) -> RunConfig:
    """Return the configuration of the folder's run; UsageError where data or options differ."""
    begun = read_config(run_dir)
    differing = differing_options(begun.options, config.options)
    for name in ("content_id", "source_id", "recipe"):
        one, other = ({name: side.to_json()[name]} for side in (begun, config))
        differing += differing_fields(one, other)
    if differing:
        options_file = OPTIONS_FILE if begun.format_version > 3 else OLD_OPTIONS_FILE
        raise UsageError(
            f"{run_dir}: expected a run of this data and these options to resume, found and "
            f"given {'; '.join(differing)}; leave the differing options out (the run's own are in "
            f"{run_dir / options_file}) or choose another folder"
        )
    return begun
