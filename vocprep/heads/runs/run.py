"""A run: a folder with trained heads and everything that is needed to use them.

``run.json`` is the run's configuration and does not change while it lasts; ``options.toml`` trains
another like it; ``metrics.jsonl`` is its log; ``model.safetensors`` its latest validated weights,
replaced whole; ``weights.json`` where the backbone's weights were; ``pca.safetensors`` the
principal components of its shards, if they have any; ``mlflow.json`` the id of its run of MLflow.
A run can be used from its first validation on. ``checkpoint.safetensors`` is there while it is
trained, for ``--resume``; ``.lock`` is the file lock of the training that writes there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from vocprep.errors import RunError
from vocprep.features.components import COMPONENTS_FILE
from vocprep.files.names import found_at, names_in
from vocprep.files.reading import read_json
from vocprep.heads.model.tfdet import TFDetHeads
from vocprep.heads.runs.config import RunConfig
from vocprep.heads.runs.log import HISTORY_FILE
from vocprep.heads.runs.presets import OPTIONS_FILE
from vocprep.heads.runs.state import CHECKPOINT_FILE, MODEL_FILE, read_state
from vocprep.heads.runs.sweeps import parse_run_name, run_name
from vocprep.storage.places import local_path
from vocprep.validation import explain

CONFIG_FILE = "run.json"
OLD_OPTIONS_FILE = "recipe.toml"
"""Its name up to format 3."""
WEIGHTS_FILE = "weights.json"
CURVES_FILE = "curves.png"
MLFLOW_FILE = "mlflow.json"
MAX_CONFIG_BYTES = 16 << 20
"""Of ``run.json``, whose largest part are the names of at most 65,536 classes."""
RUN_FILES = (
    *(CONFIG_FILE, MODEL_FILE, CHECKPOINT_FILE, OPTIONS_FILE, OLD_OPTIONS_FILE),
    *(HISTORY_FILE, WEIGHTS_FILE, COMPONENTS_FILE, CURVES_FILE, MLFLOW_FILE),
)
_SMALL = 256 << 20
"""Bytes of heads that may be made before their file is read, which tells what differs in it."""


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


def seed_folder(folder: Path, seed: int) -> Path:
    """Return where one of several runs lies that are trained into a folder, by its seed."""
    return folder / run_name("seed", seed)


def several_runs(folder: Path) -> list[Path]:
    """Return the runs of several seeds or of a sweep that lie in a folder, by seed or value.

    None where the folder is a run itself.
    """
    if not folder.is_dir() or (folder / CONFIG_FILE).exists():
        return []
    found = [(parsed, name) for name in names_in(folder) if (parsed := parse_run_name(name))]
    return [folder / name for _, name in sorted(found) if (folder / name / CONFIG_FILE).is_file()]


def seed_runs(folder: Path) -> list[Path]:
    """Return those of ``several_runs`` that differ in their seed alone."""
    return [run for run in several_runs(folder) if is_of(run, "seed")]


def is_of(run: Path, option: str) -> bool:
    """Return whether a run's folder is named as one of several that differ in an option."""
    parsed = parse_run_name(run.name)
    return parsed is not None and parsed[0] == option


def group_of(run_dir: Path) -> str:
    """Return the name of the folder of the runs that a run was trained beside; empty without."""
    return run_dir.resolve().parent.name if parse_run_name(run_dir.name) else ""


def load_run(run_dir: str | Path, device: torch.device | str = "cpu") -> Run:
    """Open a run folder: configuration and latest weights, checked against each other.

    Raises RunError when a file is missing, cannot be read, or does not fit the others.
    """
    run_dir = local_path(run_dir)
    config = read_config(run_dir)
    path = run_dir / MODEL_FILE
    if not path.exists():
        raise RunError(
            f"{path}: expected the run's weights, found no file; training has not reached its "
            "first validation, train again or continue with --resume"
        )
    check_size(path, config)
    with torch.random.fork_rng(devices=[]):
        model = TFDetHeads.from_config(config.heads)
    epoch, state = read_state(path, config, model.state_dict())
    model.load_state_dict(state)
    return Run(path=run_dir, config=config, model=model.to(device).eval(), epoch=epoch)


def check_size(path: Path, config: RunConfig) -> None:
    """Raise RunError where the heads of a configuration are far larger than a file of weights.

    Before memory is taken for them: a damaged ``run.json`` may name heads of any size.
    """
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        state = TFDetHeads.from_config(config.heads).state_dict()
    size, expected = path.stat().st_size, sum(tensor.nbytes for tensor in state.values())
    if expected > 2 * size + _SMALL:
        raise RunError(
            f"{path}: expected the weights of the heads in {CONFIG_FILE}, {expected:,} bytes, "
            f"found {size:,}; copy both files from one run folder"
        )


def read_config(run_dir: Path) -> RunConfig:
    """Return the configuration in a folder's ``run.json``; RunError when missing or unfit."""
    path = run_dir / CONFIG_FILE
    if runs := several_runs(run_dir):
        raise RunError(
            f"{run_dir}: expected one run, found {len(runs)} in it; name one of them, such as "
            f"{runs[0]}"
        )
    if not path.exists():
        raise RunError(
            f"{run_dir}: expected a run, the folder that vocprep train wrote, found "
            f"{found_at(run_dir)}; check the path"
        )
    try:
        value = read_json(path, MAX_CONFIG_BYTES)
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path}: cannot be read as JSON ({explain(error)}); copy it again, or train again in "
            "another folder"
        ) from error
    try:
        return RunConfig.from_json(value)
    except RunError as error:
        raise RunError(
            f"{path}: {error}; use the version of vocprep that wrote it, or train again"
        ) from error
