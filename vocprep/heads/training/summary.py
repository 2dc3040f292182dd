"""What a training returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vocprep.heads.runs.log import EpochMetrics
from vocprep.heads.training.steps import Training


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
