"""All that is known of a user's dataset before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vocprep.labels.decode import LabelRule
from vocprep.own_data.content.choices import Choices
from vocprep.own_data.content.survey import Survey
from vocprep.own_data.layouts.found import Found
from vocprep.own_data.pairing import Pairs
from vocprep.own_data.splitting import Splits


@dataclass(frozen=True, kw_only=True, eq=False)
class Description:
    """A dataset: where its files are, what they hold, and what follows from it."""

    root: Path
    """The data dir."""
    name: str
    found: Found
    pairs: Pairs
    survey: Survey
    choices: Choices
    rule: LabelRule
    """How the masks are decoded, by these choices."""
    splits: Splits
    notes: Sequence[str]
    """What is unusual, in sentences."""
