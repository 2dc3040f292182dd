"""The state of a training on disk: weights, and the checkpoint that a resumed training restores.

Both are safetensors files, replaced whole at the end of an epoch, whose metadata name the run.
``model.safetensors`` holds the latest validated weights; ``checkpoint.safetensors`` weights and
AdamW's moments. Neither holds random numbers: they are drawn anew each epoch from seed, epoch and
rank.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from vocprep.errors import RunError
from vocprep.features.weights import StateDict
from vocprep.files import canonical_json, write_atomic
from vocprep.heads.runs.config import RunConfig

MODEL_FILE = "model.safetensors"
CHECKPOINT_FILE = "checkpoint.safetensors"
_MODEL, _OPTIMIZER = "model/", "optimizer/"


def save_weights(run_dir: Path, config: RunConfig, model: nn.Module, epoch: int) -> None:
    """Replace the run's ``model.safetensors`` by the model's present state."""
    write_tensors(run_dir / MODEL_FILE, config.run_id, model.state_dict(), epoch)


def save_checkpoint(
    run_dir: Path, config: RunConfig, model: nn.Module, optimizer: torch.optim.Optimizer, epoch: int
) -> None:
    """Replace the run's checkpoint by the present state, after ``epoch`` epochs."""
    tensors = {f"{_MODEL}{name}": tensor for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state[parameter].items():
            tensors[f"{_OPTIMIZER}{name}/{key}"] = value
    write_tensors(run_dir / CHECKPOINT_FILE, config.run_id, tensors, epoch)


def restore(
    run_dir: Path, config: RunConfig, model: nn.Module, optimizer: torch.optim.Optimizer
) -> int:
    """Restore model and optimizer from the run's checkpoint and return its epoch.

    The last epoch, with its weights, where the training has ended; 0, changing nothing, where there
    is no checkpoint. Raises RunError when a file does not read or is not this run's.
    """
    path = run_dir / MODEL_FILE
    if path.is_file():
        epoch, weights = read_tensors(path, config.run_id)
        if epoch == config.options.epochs:
            model.load_state_dict(weights)
            return epoch
    path = run_dir / CHECKPOINT_FILE
    if not path.is_file():
        return 0
    epoch, tensors = read_tensors(path, config.run_id)
    try:
        model.load_state_dict(_below(_MODEL, tensors))
        for name, parameter in model.named_parameters():
            moments = _below(f"{_OPTIMIZER}{name}/", tensors)
            optimizer.state[parameter] = {
                key: value.to(parameter.device) for key, value in moments.items()
            }
    except RuntimeError as error:
        raise RunError(
            f"{path}: expected the tensors of this run's heads, found others ({error}); train "
            "again with --overwrite"
        ) from error
    return epoch


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def write_tensors(path: Path, run_id: str, tensors: StateDict, epoch: int) -> None:
    """Write a state after ``epoch`` epochs, whole, with the id of its run."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # One metadata entry only: safetensors writes several in an order that is not fixed.
    about = canonical_json({"run_id": run_id, "epoch": epoch}).decode()
    # Not save_file, which writes through a temporary file of a name of its own.
    write_atomic(path, save(state, metadata={"vocprep": about}))


def read_tensors(path: Path, run_id: str) -> tuple[int, StateDict]:
    """Return the epoch and the tensors of what ``write_tensors`` wrote.

    Raises RunError when the file does not read or belongs to another run.
    """
    try:
        with safe_open(path, framework="pt") as stream:
            about = json.loads((stream.metadata() or {}).get("vocprep", "{}"))
            state = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118  # not a dict
    except (SafetensorError, OSError, ValueError) as error:
        raise RunError(
            f"{path}: expected a safetensors file, found one that does not read ({error}); copy it "
            "again or train again with --overwrite"
        ) from error
    about = about if isinstance(about, dict) else {}
    epoch = about.get("epoch")
    if about.get("run_id") != run_id or not isinstance(epoch, int):
        raise RunError(
            f"{path}: expected the weights of the run in run.json ({run_id[:12]}), "
            f"found those of {str(about.get('run_id'))[:12]}; copy both files from one run folder"
        )
    return epoch, state


def check_tensors(path: Path, *, expected: StateDict, found: StateDict) -> None:
    """Raise RunError naming the first tensor that is missing, superfluous or of another shape."""
    for name in [*expected, *found]:
        shapes = [list(s[name].shape) if name in s else "no tensor" for s in (expected, found)]
        if shapes[0] != shapes[1]:
            raise RunError(
                f"{path}: tensor {name}: expected {shapes[0]}, found {shapes[1]}; the file is not "
                "of this version's heads, train again"
            )
