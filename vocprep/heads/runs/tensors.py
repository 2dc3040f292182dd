"""Tensors of a run on disk: one safetensors file, replaced whole, that names its run."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from vocprep.errors import RunError
from vocprep.features.backbone import StateDict
from vocprep.files import canonical_json, write_atomic


def write_tensors(path: Path, run_id: str, tensors: StateDict, epoch: int) -> None:
    """Write a state after ``epoch`` epochs, whole, with the name of the run that it belongs to."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # One metadata entry only: safetensors writes several in an order that is not fixed.
    about = canonical_json({"run_id": run_id, "epoch": epoch}).decode()
    # Not save_file, which has a temporary file of its own that nobody finds after a kill.
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
