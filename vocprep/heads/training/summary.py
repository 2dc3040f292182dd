"""What a training returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vocprep.heads.runs.log import EpochMetrics
from vocprep.heads.training.steps import Training

SWEEP_COLUMNS = (
    *("epoch", "train_loss", "val_loss"),
    *("train_miou", "val_miou", "train_pixel_accuracy", "val_pixel_accuracy"),
)
"""Fields of ``EpochMetrics`` that a sweep's table has, of the last epoch."""


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """The result of a training."""

    run_dir: Path
    device: str
    precision: str
    """``bf16`` or ``fp32``."""
    leads: bool
    """Whether this process wrote the run; of those that ``torchrun`` starts only one does."""
    images: int
    """Samples per epoch, views included."""
    parameters: int
    """Trainable ones."""
    seconds: float
    """Of the epochs that were trained now."""
    resumed_from: int
    """Epochs that were trained before; 0 for a training from the start."""
    history: tuple[EpochMetrics, ...]
    """All epochs of the run."""
    notes: tuple[str, ...]
    """Notes that qualify the scores: on the data, and on over-fitting."""

    @property
    def final(self) -> EpochMetrics:
        """The last epoch, whose weights the run holds."""
        return self.history[-1]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values: what ``vocprep train --json`` prints."""
        return {
            "run": str(self.run_dir),
            "seconds": self.seconds,
            "device": self.device,
            "precision": self.precision,
            "parameters": self.parameters,
            "resumed_from": self.resumed_from,
            "history": [asdict(metrics) for metrics in self.history],
            "notes": list(self.notes),
        }


@dataclass(frozen=True, kw_only=True)
class SeedsSummary:
    """The result of training with several seeds."""

    out: Path
    seeds: tuple[int, ...]
    runs: tuple[RunSummary, ...]
    """In the order of the seeds."""
    seconds: float
    """Of all of them together."""

    @property
    def leads(self) -> bool:
        """Whether this process wrote the runs."""
        return self.runs[0].leads

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values: what ``vocprep train --seeds --json`` prints."""
        return {
            "out": str(self.out),
            "seeds": list(self.seeds),
            "seconds": self.seconds,
            "runs": [run.to_json() for run in self.runs],
        }


@dataclass(frozen=True, kw_only=True)
class SweepSummary:
    """The result of a sweep: runs that differ in one option alone."""

    out: Path
    option: str
    values: tuple[float, ...]
    runs: tuple[RunSummary, ...]
    """In the order of the values."""
    seconds: float
    """Of all of them together."""

    @property
    def leads(self) -> bool:
        """Always: a sweep is trained by one process."""
        return True

    @property
    def best(self) -> float | None:
        """The value with the highest mIoU of the validation split after the last epoch.

        Of equal ones that with the higher pixel accuracy, then the first. None without validation.
        """
        scores = {
            value: (run.final.val_miou, run.final.val_pixel_accuracy or 0.0)
            for value, run in zip(self.values, self.runs, strict=True)
            if run.final.val_miou is not None
        }
        return max(scores, key=lambda value: scores[value], default=None)

    def table(self) -> dict[str, Any]:
        """Return plain JSON values: what ``sweep.json`` holds, a row for each value."""
        return {
            "option": self.option,
            "best": self.best,
            "rows": [
                {
                    "value": value,
                    "run": run.run_dir.name,
                    **{name: getattr(run.final, name) for name in SWEEP_COLUMNS},
                }
                for value, run in zip(self.values, self.runs, strict=True)
            ],
        }

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values: what ``vocprep train --sweep --json`` prints."""
        return {
            "out": str(self.out),
            "seconds": self.seconds,
            **self.table(),
            "runs": [run.to_json() for run in self.runs],
        }


def summary_of(  # the parts of one result
    training: Training,
    run_dir: Path,
    history: Sequence[EpochMetrics],
    notes: tuple[str, ...],
    done: int,
    seconds: float,
) -> RunSummary:
    """Return the result of a training of which ``done`` epochs were there before."""
    model, processes = training.model, training.processes
    return RunSummary(
        run_dir=run_dir,
        device=str(processes.device),
        precision=training.precision,
        leads=processes.leads,
        images=sum(training.feed.batch_sizes),
        parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        seconds=seconds,
        resumed_from=done,
        history=tuple(history),
        notes=notes,
    )
