"""A run: a folder with trained heads and all that is needed to use them.

``run.json`` says what the run is and never changes while it lasts, ``recipe.toml`` how to train
another like it; ``metrics.jsonl`` is its course; ``model.safetensors`` is its latest scored state,
replaced whole, and names the ``run.json`` that it belongs to. A run can be used from its first
score on. ``checkpoint.safetensors`` is there while it is trained, to go on from.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from vocprep.errors import RunError, ShardError, UsageError
from vocprep.files import (
    TEMPORARY_PREFIX,
    canonical_json,
    sha256_hex,
    write_atomic,
    write_json,
)
from vocprep.heads.history import HISTORY_FILE
from vocprep.heads.options import EXECUTION, HeadsConfig, TrainOptions
from vocprep.heads.recipes import differing_options, recipe_toml
from vocprep.heads.tensors import check_tensors, read_tensors, write_tensors
from vocprep.heads.tfdet import TFDetHeads
from vocprep.labels.schema import Schema
from vocprep.recipe import Recipe, differing_fields

CONFIG_FILE = "run.json"
MODEL_FILE = "model.safetensors"
CHECKPOINT_FILE = "checkpoint.safetensors"
RECIPE_FILE = "recipe.toml"
CURVES_FILE = "curves.png"
EVENTS_DIR = "tensorboard"
RUN_FILES = (CONFIG_FILE, MODEL_FILE, CHECKPOINT_FILE, RECIPE_FILE, HISTORY_FILE, CURVES_FILE)
RUN_FORMAT_VERSION = 3


def versions() -> dict[str, str]:
    """Return the versions that a run's numbers depend on."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "vocprep": metadata.version("vocprep"),
    }


@dataclass(frozen=True, kw_only=True)
class LabelSpace:
    """What a schema says of the heads' outputs; a run keeps it, so it needs no manifest."""

    name: str
    void: int
    """Id of pixels that no label may be scored on."""
    names: Mapping[int, str]
    """Class ids and names, void not among them."""

    @classmethod
    def of(cls, schema: Schema) -> Self:
        """Take what the heads need from a schema."""
        return cls(name=schema.name, void=schema.void, names=dict(schema.names))

    @property
    def categories(self) -> int:
        """The largest class id plus one: an output's index is the class id."""
        return max(self.names) + 1

    def label_name(self, label: int) -> str:
        """Return a label's name for people; ids without one are named by their number."""
        return "void" if label == self.void else self.names.get(label, f"label {label}")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What a run is: decided before its first step and kept in ``run.json``."""

    heads: HeadsConfig
    options: TrainOptions
    """Those that decide the weights are kept; where and how is for each training to say."""
    labels: LabelSpace
    recipe: Recipe
    """Recipe of the shards that it learnt from: backbone, weights digest, normalisation, geometry,
    schema; what ``predict`` must do to a new picture."""
    content_id: str
    source_id: str
    versions: Mapping[str, str] = field(default_factory=versions)
    format_version: int = field(default=RUN_FORMAT_VERSION, compare=False)
    """Of the ``run.json`` that it was read from."""
    run_id_read: str | None = field(default=None, compare=False)

    @property
    def run_id(self) -> str:
        """Sha256 of the canonical JSON of the configuration, as its file has or will have it."""
        return self.run_id_read or sha256_hex(canonical_json(self.to_json()))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; ``from_json`` is the inverse."""
        names = {str(key): name for key, name in sorted(self.labels.names.items())}
        return {
            "run_format_version": RUN_FORMAT_VERSION,
            "heads": asdict(self.heads),
            "options": {
                name: value for name, value in asdict(self.options).items() if name not in EXECUTION
            },
            "labels": {"name": self.labels.name, "void": self.labels.void, "names": names},
            "recipe_id": self.recipe.recipe_id,
            "content_id": self.content_id,
            "source_id": self.source_id,
            "recipe": self.recipe.to_json(),
            "versions": dict(self.versions),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Rebuild a configuration; RunError says what does not fit."""
        try:
            written, value = value, _upgraded(value)
            labels = value["labels"]
            return cls(
                heads=HeadsConfig(**value["heads"]),
                options=TrainOptions(**value["options"]),
                labels=LabelSpace(
                    name=labels["name"],
                    void=labels["void"],
                    names={int(key): name for key, name in labels["names"].items()},
                ),
                recipe=Recipe.from_json(value["recipe"]),
                content_id=value["content_id"],
                source_id=value["source_id"],
                versions=value["versions"],
                format_version=written["run_format_version"],
                run_id_read=sha256_hex(canonical_json(written)),
            )
        except KeyError as error:
            raise RunError(f"expected a field {error}, found none") from error
        except (TypeError, ValueError, AttributeError, ShardError, UsageError) as error:
            raise RunError(str(error)) from error


@dataclass(frozen=True, kw_only=True)
class Run:
    """Trained heads, ready for use."""

    path: Path
    config: RunConfig
    model: TFDetHeads
    """In eval mode."""
    epoch: int
    """How many epochs the weights have seen."""


def holds_run(run_dir: Path) -> bool:
    """Say whether a training in this folder has come to something that can be gone on with."""
    return any((run_dir / name).is_file() for name in (MODEL_FILE, CHECKPOINT_FILE))


def prepare_run_dir(run_dir: Path, config: RunConfig) -> RunConfig:
    """Make the folder ready for a training and return the configuration of its run.

    A new run has its ``run.json`` written. What a training left that ended before its first
    checkpoint is no run and is replaced. With ``resume`` a run that is there stays, and its
    configuration is returned. Raises UsageError, touching nothing, when the folder holds other
    things, a run and neither ``overwrite`` nor ``resume`` is on, or a run of other data or of
    another recipe than the one to go on with.
    """
    if run_dir.exists() and not run_dir.is_dir():
        raise UsageError(f"{run_dir}: expected a folder for the run, found a file; choose another")
    names = {path.name for path in run_dir.iterdir()} if run_dir.exists() else set()
    unfinished = {name for name in names if name.startswith(TEMPORARY_PREFIX)}
    present = names - unfinished
    if present and not _is_ours(run_dir):
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
    write_atomic(run_dir / RECIPE_FILE, recipe_toml(config.options).encode())


def _continued(run_dir: Path, config: RunConfig) -> RunConfig:
    """Return the configuration of the folder's run; UsageError where it is not this one's."""
    begun = read_config(run_dir)
    differing = differing_options(begun.options, config.options)
    for name in ("content_id", "source_id", "recipe"):
        one, other = ({name: side.to_json()[name]} for side in (begun, config))
        differing += differing_fields(one, other)
    if differing:
        raise UsageError(
            f"{run_dir}: expected a run of this data and this recipe to go on with, found and "
            f"given {'; '.join(differing)}; leave the differing options out (the recipe is in "
            f"{run_dir / RECIPE_FILE}) or choose another folder"
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


def _upgraded(value: dict[str, Any]) -> dict[str, Any]:
    """Return a run.json's values as this version names them; RunError for an unknown version."""
    version = value["run_format_version"]
    if version == RUN_FORMAT_VERSION:
        return value
    if version == 2:
        options = {**value["options"], "dropout_factor": value["options"]["dropout"]}
        del options["dropout"]
        return {**value, "options": options}
    if version != 1:
        raise RunError(
            f"expected run_format_version {RUN_FORMAT_VERSION}, 2 or 1, found {version!r}"
        )
    fixed = {"slots": "area"}
    options = {"standardise": False, "precision": "fp32", "recipe": "", **fixed}
    return {
        **value,
        "heads": {**value["heads"], **fixed},
        "options": {**value["options"], **options},
        # Older shards knew the patch itself and the last layer only.
        "recipe": {"windows": [32], "layers": ["layer3"], **value["recipe"]},
    }
