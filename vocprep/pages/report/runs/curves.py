"""How trainings went: losses and validation scores by epoch, and whether they went on too long."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from markupsafe import Markup

from vocprep.heads.runs.log import EpochMetrics
from vocprep.heads.runs.overfitting import find_turn
from vocprep.pages.report.charts import Axes, Line, line_chart
from vocprep.pages.report.page import Section, section
from vocprep.pages.report.runs.scored import ScoredRun

Value = Callable[[EpochMetrics], float | None]


def curves_section(runs: Sequence[ScoredRun]) -> Section:
    """Return losses and validation scores by epoch."""
    logged = [run for run in runs if run.history]
    turns = [(run.name, find_turn(run.history)) for run in logged]
    return section(
        "curves",
        "Training",
        "run_curves.html",
        charts=_charts(logged) if logged else [],
        turns=[(name, turn) for name, turn in turns if turn is not None],
        unlogged=[run.name for run in runs if not run.history],
        few_validated=[(run.name, epochs) for run in logged if len(epochs := _validated(run)) < 2],
        several=len(runs) > 1,
    )


def _charts(runs: Sequence[ScoredRun]) -> list[Markup]:
    """Return the charts: both losses of one run in one, of several runs in one each."""
    nats, percent = Axes(x="epoch", y="loss (nats)"), Axes(x="epoch", y="per cent")
    if len(runs) == 1:
        (run,) = runs
        losses = [
            _line(run, "training steps", _loss),
            _line(run, "train images", lambda epoch: epoch.train_loss),
            _line(run, "validation", _val_loss),
            *_turn_line(run),
        ]
        scores = [
            _line(run, "validation mIoU of classes present", _miou),
            _line(run, "train mIoU", lambda epoch: _percent(epoch.train_miou)),
            _line(run, "validation pixel accuracy", _hits),
            _line(run, "train pixel accuracy", lambda epoch: _percent(epoch.train_pixel_accuracy)),
        ]
        return _drawn(("Losses", losses, nats), ("Scores", scores, percent))
    several = (
        ("Training loss", _loss, nats),
        ("Validation loss", _val_loss, nats),
        ("Validation mIoU of classes present", _miou, percent),
    )
    return _drawn(
        *(
            (title, [_line(run, run.name, value) for run in runs], axes)
            for title, value, axes in several
        )
    )


def _drawn(*charts: tuple[str, Sequence[Line], Axes]) -> list[Markup]:
    """Return the charts in which a line has more than a point."""
    return [
        line_chart(title, [line for line in lines if line.xs], axes)
        for title, lines, axes in charts
        if any(len(line.xs) > 1 for line in lines)
    ]


def _validated(run: ScoredRun) -> list[int]:
    """Return the epochs after which a run was validated."""
    return [each.epoch for each in run.history if each.val_loss is not None]


def _turn_line(run: ScoredRun) -> list[Line]:
    """Return the mark of the lowest validation loss of an overfitted run."""
    turn = find_turn(run.history)
    if turn is None:
        return []
    return [Line(label="lowest validation loss", xs=[turn.epoch], ys=[turn.loss])]


def _line(run: ScoredRun, label: str, value: Value) -> Line:
    points = [(each.epoch, found) for each in run.history if (found := value(each)) is not None]
    return Line(label=label, xs=[x for x, _ in points], ys=[y for _, y in points])


def _loss(epoch: EpochMetrics) -> float | None:
    return epoch.loss


def _val_loss(epoch: EpochMetrics) -> float | None:
    return epoch.val_loss


def _miou(epoch: EpochMetrics) -> float | None:
    return _percent(epoch.val_miou)


def _hits(epoch: EpochMetrics) -> float | None:
    return _percent(epoch.val_pixel_accuracy)


def _percent(score: float | None) -> float | None:
    return None if score is None else 100 * score
