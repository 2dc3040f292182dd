"""Over-fitting: from when on a training made the validation loss worse, and whether it did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vocprep.heads.runs.log import EpochMetrics

OVERFITTED = 0.02
"""Share by which the validation loss of an overfitted run ends above its lowest value. From one
validation to the next it moves by less where it does not rise for good."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """The epoch after which the validation loss of a run rises while the training loss falls."""

    epoch: int
    loss: float
    """Its validation loss, the lowest."""
    rise: float
    """Share by which the last one is higher."""
    best_miou: int
    """The validated epoch with the highest mIoU."""

    @property
    def note(self) -> str:
        """One sentence about it."""
        return (
            f"over-fitting: the val loss is lowest after epoch {self.epoch} and ends "
            f"{100 * self.rise:.0f} % above that while the train loss falls on; the val mIoU is "
            f"highest after epoch {self.best_miou}"
        )


def find_turn(history: Sequence[EpochMetrics]) -> Turn | None:
    """Return where a run begins to overfit; None where it does not, or is validated once.

    The training loss is that of train images, scored as the validation split is, where the log has
    it.

    >>> def epoch(number, loss, val_loss):
    ...     return EpochMetrics(
    ...         epoch=number, lr=0, loss=loss, class_loss=0, mask_loss=0, images_per_second=1,
    ...         seconds=1, val_loss=val_loss, val_miou=0.1 * number,
    ...     )
    >>> turn = find_turn([epoch(1, 3.0, 2.0), epoch(2, 2.0, 1.6), epoch(3, 1.0, 2.0)])
    >>> turn.epoch, round(turn.rise, 2), turn.best_miou
    (2, 0.25, 3)
    """
    validated = [(each.val_loss, each) for each in history if each.val_loss is not None]
    if len(validated) < 2:
        return None
    loss, lowest = min(validated, key=lambda pair: (pair[0], pair[1].epoch))
    last_loss, last = validated[-1]
    if not (last_loss > loss * (1 + OVERFITTED) and _train_loss(last) < _train_loss(lowest)):
        return None
    best = max(validated, key=lambda pair: (pair[1].val_miou or 0.0, -pair[1].epoch))[1]
    return Turn(epoch=lowest.epoch, loss=loss, rise=last_loss / loss - 1, best_miou=best.epoch)


def _train_loss(epoch: EpochMetrics) -> float:
    return epoch.loss if epoch.train_loss is None else epoch.train_loss
