"""Checkpoints: all that a training needs to go on as if it had never stopped.

One safetensors file, replaced whole at the end of an epoch: weights, AdamW's moments, the epoch.
Random numbers need no place in it: they are drawn anew each epoch from seed, epoch and process.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from vocprep.errors import RunError
from vocprep.heads.runs.config import RunConfig
from vocprep.heads.runs.run import CHECKPOINT_FILE
from vocprep.heads.runs.tensors import read_tensors, write_tensors

_MODEL, _OPTIMIZER = "model/", "optimizer/"


def save_checkpoint(
    run_dir: Path, config: RunConfig, model: nn.Module, optimizer: torch.optim.Optimizer, epoch: int
) -> None:
    """Replace the run's checkpoint by the present state, after ``epoch`` epochs."""
    tensors = {f"{_MODEL}{name}": tensor for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state[parameter].items():
            tensors[f"{_OPTIMIZER}{name}/{key}"] = value
    write_tensors(run_dir / CHECKPOINT_FILE, config.run_id, tensors, epoch)


def load_checkpoint(
    run_dir: Path, config: RunConfig, model: nn.Module, optimizer: torch.optim.Optimizer
) -> int:
    """Bring model and optimizer to the checkpoint's state and return its epoch.

    0, touching nothing, when the folder has none. Raises RunError when the file does not read or is
    not this run's.
    """
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
