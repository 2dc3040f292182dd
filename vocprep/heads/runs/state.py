"""The state of a training on disk: weights, and the checkpoint that a resumed training restores.

Both are safetensors files, replaced whole at the end of an epoch, whose metadata name the run.
``model.safetensors`` holds the latest validated weights; ``checkpoint.safetensors`` weights,
AdamW's moments and the exponential mean of the weights, where training keeps one. Neither holds
random numbers: they are drawn anew each epoch from seed, epoch and rank.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from vocprep.errors import RunError
from vocprep.features.weights import StateDict
from vocprep.files.reading import open_regular, parse_json
from vocprep.files.writing import canonical_json, write_atomic
from vocprep.heads.runs.config import RunConfig
from vocprep.validation import Positive, checked, explain, from_json, printable

MODEL_FILE = "model.safetensors"
CHECKPOINT_FILE = "checkpoint.safetensors"
_MODEL, _MEAN, _OPTIMIZER = "model/", "mean/", "optimizer/"
_STEP, _SQUARES = "step", "exp_avg_sq"
_ABOUT = "vocprep"
_MAX_HEADER_BYTES = 16 << 20
_ENTRY_BYTES = 4096
"""At most of a tensor's entry in a file's header, and of the rest of that."""
_MEND = "copy it again or train again with --overwrite"


def save_weights(run_dir: Path, config: RunConfig, model: nn.Module, epoch: int) -> None:
    """Replace the run's ``model.safetensors`` by the model's present state."""
    write_tensors(run_dir / MODEL_FILE, config.run_id, model.state_dict(), epoch)


def save_checkpoint(
    run_dir: Path,
    config: RunConfig,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    epoch: int,
    mean: nn.Module | None = None,
) -> None:
    """Replace the run's checkpoint by the present state, after ``epoch`` epochs.

    ``mean`` has the exponential mean of the model's weights, where training keeps one.
    """
    tensors = _weights(model, mean)
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state[parameter].items():
            tensors[f"{_OPTIMIZER}{name}/{key}"] = value
    write_tensors(run_dir / CHECKPOINT_FILE, config.run_id, tensors, epoch)


def restore(
    run_dir: Path,
    config: RunConfig,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    steps_per_epoch: int,
    mean: nn.Module | None = None,
) -> int:
    """Restore model, optimizer and mean from the run's checkpoint and return its epoch.

    The last epoch, with its weights, where the training has ended; 0, changing nothing, where there
    is no checkpoint. Raises RunError when a file does not read, is not this run's, or holds what no
    training of ``steps_per_epoch`` steps can have left.
    """
    path = run_dir / MODEL_FILE
    if os.path.lexists(path):  # a link to nowhere is refused, as it could not be replaced
        epoch, weights = read_state(path, config, model.state_dict())
        if epoch == config.options.epochs:
            (model if mean is None else mean).load_state_dict(weights)
            return epoch
    path = run_dir / CHECKPOINT_FILE
    if not os.path.lexists(path):
        return 0
    epoch, tensors = read_state(path, config, _expected_checkpoint(model, mean))
    # Beyond 2²⁴ the optimizer's own count in float32 stands still.
    _check_moments(path, tensors, min(epoch * steps_per_epoch, 1 << 24))
    model.load_state_dict(_below(_MODEL, tensors))
    if mean is not None:
        mean.load_state_dict(_below(_MEAN, tensors))
    for name, parameter in model.named_parameters():
        moments = _below(f"{_OPTIMIZER}{name}/", tensors)
        optimizer.state[parameter] = {
            key: value.to(parameter.device) for key, value in moments.items()
        }
    return epoch


def _weights(model: nn.Module, mean: nn.Module | None) -> dict[str, Tensor]:
    """Return the weights in training and their mean, if any, by their names in a checkpoint."""
    weights = {f"{_MODEL}{name}": tensor for name, tensor in model.state_dict().items()}
    if mean is not None:
        weights |= {f"{_MEAN}{name}": tensor for name, tensor in mean.state_dict().items()}
    return weights


def _expected_checkpoint(model: nn.Module, mean: nn.Module | None) -> StateDict:
    """Return tensors of the names, shapes and types of a checkpoint."""
    tensors = _weights(model, mean)
    for name, parameter in model.named_parameters():
        moments = {_STEP: torch.zeros(()), "exp_avg": parameter, _SQUARES: parameter}
        tensors |= {f"{_OPTIMIZER}{name}/{key}": tensor for key, tensor in moments.items()}
    return tensors


def _check_moments(path: Path, tensors: StateDict, steps: int) -> None:
    """Raise RunError unless AdamW has taken so many steps and its mean squares are none below 0."""
    for name, tensor in tensors.items():
        found = None
        if name.startswith(_OPTIMIZER) and name.endswith(f"/{_STEP}") and tensor.item() != steps:
            found = f"expected {steps:,} steps, found {tensor.item():g}"
        elif name.startswith(_OPTIMIZER) and name.endswith(f"/{_SQUARES}") and (tensor < 0).any():
            found = "expected squares of 0 or more, found others"
        if found:
            raise RunError(f"{path}: tensor {name}: {found}; {_MEND}")


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
    write_atomic(path, save(state, metadata={_ABOUT: about}))


def read_state(path: Path, config: RunConfig, expected: StateDict) -> tuple[int, dict[str, Tensor]]:
    """Return the epoch and the tensors of what ``write_tensors`` wrote for a run.

    Raises RunError when the file does not read, belongs to another run, holds an epoch that the run
    does not have, other tensors than ``expected``, or values that are not finite.
    """
    most = sum(tensor.nbytes + _ENTRY_BYTES for tensor in expected.values()) + _ENTRY_BYTES
    try:
        with open_regular(path) as stream:
            size = os.fstat(stream.fileno()).st_size
            head = _read_head(stream, size)
            about = _about(head)
            _check_about(path, about, config)
            if size > most:
                raise ValueError(f"{size:,} bytes, where at most {most:,} are expected")
            tensors = load(head + stream.read(most))
    # Of safetensors and torch, which raise these for damaged bytes.
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise RunError(
            f"{path}: expected a safetensors file, found one that does not read "
            f"({explain(error)}); {_MEND}"
        ) from error
    if config.format_version == 1:  # which had no standardising: its heads do none
        added = {name: tensor for name, tensor in expected.items() if "standardise." in name}
        tensors = {**added, **tensors}
    _check_tensors(path, expected=expected, found=tensors)
    return about.epoch, tensors


@checked
class _About:
    """What a file's metadata say of it."""

    run_id: str
    epoch: Positive


def _read_head(stream: BinaryIO, size: int) -> bytes:
    """Return the bytes of a safetensors file up to its tensors; ValueError where there are none."""
    length = stream.read(8)
    header = int.from_bytes(length, "little")
    if len(length) < 8 or header > min(size - 8, _MAX_HEADER_BYTES):
        raise ValueError(f"its header of {header:,} bytes does not fit its {size:,} bytes")
    return length + stream.read(header)


def _about(head: bytes) -> _About:
    """Return the metadata of a safetensors file; ValueError where there are none."""
    header = parse_json(head[8:])
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    text = metadata.get(_ABOUT) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise ValueError("it does not name the run that it belongs to")
    return from_json(_About, parse_json(text))


def _check_about(path: Path, about: _About, config: RunConfig) -> None:
    """Raise RunError for a file of another run, or of an epoch that the run does not have."""
    if about.run_id != config.run_id:
        raise RunError(
            f"{path}: expected the weights of the run in run.json ({config.run_id[:12]}), found "
            f"those of {printable(about.run_id[:12])}; copy both files from one run folder"
        )
    if about.epoch > config.options.epochs:
        raise RunError(
            f"{path}: expected an epoch from 1 to {config.options.epochs}, found {about.epoch}; "
            f"{_MEND}"
        )


def _check_tensors(path: Path, *, expected: StateDict, found: StateDict) -> None:
    """Raise RunError naming the first tensor that is missing, superfluous or of other values."""
    for name in [*expected, *found]:
        kinds = [_kind(tensors.get(name)) for tensors in (expected, found)]
        if kinds[0] != kinds[1]:
            raise RunError(
                f"{path}: tensor {printable(name)}: expected {kinds[0]}, found {kinds[1]}; the "
                "file is not of this version's heads, train again"
            )
    for name, tensor in found.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise RunError(f"{path}: tensor {name}: expected finite values, found others; {_MEND}")


def _kind(tensor: Tensor | None) -> str:
    """Return a tensor's shape, with its type where that is not float32."""
    if tensor is None:
        return "no tensor"
    dtype = "" if tensor.dtype == torch.float32 else f" of {tensor.dtype}"
    return f"{list(tensor.shape)}{dtype}"
