"""The log of a training: one line per epoch in ``metrics.jsonl``, and the curves drawn of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field

from vocprep.drawing.charts import Curve, curves_png
from vocprep.errors import RunError
from vocprep.files.reading import parse_json, read_file
from vocprep.files.writing import write_atomic
from vocprep.storage.places import local_path
from vocprep.validation import Positive, explain, from_json

HISTORY_FILE = "metrics.jsonl"
_MAX_HISTORY_BYTES = 256 << 20
"""Of a log: that of 100,000 epochs of spiking heads has 180 MB."""
_RENAMED = {"category_loss": "class_loss", "val_category_loss": "val_class_loss"}
"""Fields as runs up to format 3 name them, and what they are called now."""
_Loss = Annotated[float, Field(ge=-1e39, le=1e39)]
"""Of means of float32 numbers, which end at 3.4e38."""
_Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True)
class EpochMetrics:
    """The metrics of one epoch; losses in nats, means over the epoch."""

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)  # of lines that are read

    epoch: Positive
    """Counted from 1."""
    lr: float
    """Learning rate of the epoch's last step."""
    loss: _Loss
    """Of the training steps, with dropout and while the weights changed; ``train_loss`` is the one
    to compare with ``val_loss``."""
    class_loss: _Loss
    mask_loss: _Loss
    images_per_second: float
    """Training alone, without validation."""
    seconds: float
    """The whole epoch, validation included."""
    device: str = ""
    precision: str = ""
    """Of the matrix products, ``bf16`` or ``fp32``: what ``auto`` came to."""
    compiled: bool = False
    val_loss: _Loss | None = None
    """This and the following are None in epochs that were not validated."""
    val_class_loss: _Loss | None = None
    val_mask_loss: _Loss | None = None
    val_miou: _Share | None = None
    """Mean IoU over the classes present in the ground truth."""
    val_pixel_accuracy: _Share | None = None
    train_loss: _Loss | None = None
    """This and the following are of train images, scored as the validation split is. None where
    that was not done, as in runs of earlier versions."""
    train_class_loss: _Loss | None = None
    train_mask_loss: _Loss | None = None
    train_miou: _Share | None = None
    """None, too, where fewer images were scored than the validation split has: a mean over the
    classes present is only to be compared with that of as many images."""
    train_pixel_accuracy: _Share | None = None
    spike_rates: Mapping[str, _Share] | None = None
    """Share of neurons and steps that fired in training, by LIF layer; None without spikes."""

    def scalars(self) -> dict[str, float]:
        """Return the numbers of the epoch by name, as TensorBoard and MLflow show them.

        A spike rate is named ``spike_rate/`` and its layer; ``epoch`` is what they are drawn over.
        """
        values = asdict(self)
        rates = values.pop("spike_rates") or {}
        values |= {f"spike_rate/{name}": rate for name, rate in rates.items()}
        return {
            name: value
            for name, value in values.items()
            if isinstance(value, int | float) and name not in ("epoch", "compiled")
        }


def append_epoch(run_dir: Path, metrics: EpochMetrics) -> None:
    """Append one line to the run's ``metrics.jsonl``."""
    with (run_dir / HISTORY_FILE).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(asdict(metrics), allow_nan=False) + "\n")


def truncate_history(run_dir: Path, epoch: int) -> list[EpochMetrics]:
    """Drop what was written after an epoch, torn lines too, and return the rest.

    Raises RunError, changing nothing, when a line up to that epoch is missing or cannot be read.
    """
    path = run_dir / HISTORY_FILE
    if not epoch and not path.exists():
        return []
    lines = _read_lines(path)[:epoch] if path.exists() else []
    if len(lines) < epoch:
        raise RunError(
            f"{path}: expected {epoch} lines, one for each epoch that the checkpoint includes, "
            f"found {len(lines)}; train again with --overwrite"
        )
    kept = _parse_lines(path, lines, "train again with --overwrite")
    write_atomic(path, b"".join(line.encode() + b"\n" for line in lines))
    return kept


def read_history(run_dir: str | Path) -> list[EpochMetrics]:
    """Return the epochs of a run in order, for curves and tables.

    Raises RunError when ``metrics.jsonl`` is missing or a line of it cannot be read.
    """
    path = local_path(run_dir) / HISTORY_FILE
    advice = "continue with --resume where it was interrupted, or train again with --overwrite"
    return _parse_lines(path, _read_lines(path), advice)


def _read_lines(path: Path) -> list[str]:
    try:
        # Only up to a torn line's end need the bytes be UTF-8.
        return read_file(path, _MAX_HISTORY_BYTES).decode("utf-8", "replace").splitlines()
    except OSError as error:
        advice = "train again with --overwrite"
        if not isinstance(error, FileNotFoundError):
            advice = f"make it a readable file, or {advice}"
        raise RunError(f"{path}: cannot be read ({explain(error)}); {advice}") from error


def _parse_lines(path: Path, lines: Sequence[str], advice: str) -> list[EpochMetrics]:
    """Return the epochs of a log's lines, which count from 1."""
    history = []
    for number, line in enumerate(lines, start=1):
        try:
            values = {_RENAMED.get(key, key): value for key, value in parse_json(line).items()}
            metrics = from_json(EpochMetrics, values)
            if metrics.epoch != number:
                raise ValueError(f"epoch {metrics.epoch}: expected {number}")
        except (ValueError, TypeError, AttributeError) as error:
            raise RunError(
                f"{path}, line {number}: expected the metrics of epoch {number} as JSON, found "
                f"{line[:40]!r} ({explain(error)}); {advice}"
            ) from error
        history.append(metrics)
    return history


def draw_curves(history: Sequence[EpochMetrics]) -> bytes:
    """Return the losses and the mIoU of a training by epoch, as PNG.

    Those of train images and of the validation split, and the loss of the training steps.
    """
    losses = {"training steps": "loss", "train loss": "train_loss", "val loss": "val_loss"}
    scores = {"train mIoU": "train_miou", "val mIoU": "val_miou"}
    return curves_png(
        [_curve(history, label, field) for label, field in losses.items()],
        [_curve(history, label, field, 100.0) for label, field in scores.items()],
        "mIoU of classes present (%)",
    )


def _curve(history: Sequence[EpochMetrics], label: str, field: str, scale: float = 1.0) -> Curve:
    """Return a field of the epochs that have it."""
    points = [(metrics.epoch, getattr(metrics, field)) for metrics in history]
    points = [(epoch, scale * value) for epoch, value in points if value is not None]
    return Curve(label=label, epochs=[x for x, _ in points], values=[y for _, y in points])
