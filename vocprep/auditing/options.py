"""What a user sets of an audit."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from vocprep.validation import NotNegative, checked


@checked
class AuditOptions:
    """How labels are audited."""

    folds: Annotated[int, Field(ge=2, le=20)] = 5
    """Parts that pictures are dealt into: those of each are judged by heads trained on the rest."""
    splits: tuple[str, ...] | None = None
    """Splits whose pictures are judged and learnt from, all together; all of them when None."""
    top: NotNegative = 50
    """Pictures that lists and pages show, the likeliest errors first; JSON has all."""
