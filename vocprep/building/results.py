"""What a build returns: of a whole dataset version, or of a part of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from vocprep.building.finish import FinishedShard
from vocprep.building.stages import STAGES
from vocprep.options import Part
from vocprep.parallel import StageTimes
from vocprep.shards.index import DatasetIndex
from vocprep.storage.places import Place


@dataclass(frozen=True, kw_only=True)
class ShardCounts:
    """Where the shards of a version, or of a part, came from."""

    made: int = 0
    """By this build."""
    resumed: int = 0
    """Finished before: by a run that was interrupted, or by the parts of the build."""
    kept: int = 0
    """Those of the version that the folder held, whose images are the same."""

    @property
    def total(self) -> int:
        """All shards of the plan, those without a record too."""
        return self.made + self.resumed + self.kept


@dataclass(frozen=True, kw_only=True)
class BuildResult:
    """A finished dataset version, and what making it took."""

    path: Place
    index: DatasetIndex
    """dataset.json of the version."""
    images: int
    """Images of the version, quarantined ones included."""
    made: int
    """Those of them that this build had to process; 0 when the folder was up to date."""
    reused: int
    """Records whose embeddings were taken from an earlier version."""
    shards: ShardCounts
    seconds: float
    """Of the whole build."""
    stage_seconds: Mapping[str, float]
    """By stage (``vocprep.building.stages.STAGES``), summed over all threads."""
    published: bool = True
    """Whether the folder did not hold this very version before."""
    notes: tuple[str, ...] = ()
    """What is odd about the version as a whole, what was damaged of an earlier one, and allowed
    deviations from a lock file."""

    def __repr__(self) -> str:
        return (
            f"BuildResult('{self.path}': {self.index.short_id}, {self.images:,} images, "
            f"{self.made:,} made, {self.seconds:.1f} s)"
        )

    @property
    def up_to_date(self) -> bool:
        """Whether nothing had to be made."""
        return self.made == 0

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values: those of dataset.json, the notes, and what the build did."""
        build = {
            **{name: getattr(self, name) for name in ("images", "made", "reused", "published")},
            "shards": asdict(self.shards),
            "seconds": self.seconds,
            "stage_seconds": dict(self.stage_seconds),
        }
        return {**self.index.model_dump(mode="json"), "notes": list(self.notes), "build": build}


@dataclass(frozen=True, kw_only=True)
class PartResult:
    """The shards of one part of a build, all of them finished, and what making them took.

    They wait in the staging folder of the output folder; a build without a part publishes them.
    """

    path: Place
    """The output folder."""
    part: Part
    shards: tuple[str, ...]
    """Names of the part's shards."""
    missing: tuple[str, ...]
    """Names of the version's shards that are not finished yet."""
    unfinished: tuple[Part, ...]
    """The parts that they are of."""
    images: int
    """Images of the part, quarantined ones included."""
    made: int
    """Those of them that were processed now."""
    reused: int
    """Records whose embeddings were taken from an earlier version."""
    quarantined: int
    """Images of the part that no record could be made of."""
    seconds: float
    stage_seconds: Mapping[str, float]
    """By stage (``vocprep.building.stages.STAGES``), summed over all threads."""
    notes: tuple[str, ...] = ()
    """What was damaged of an earlier version."""

    def __repr__(self) -> str:
        return (
            f"PartResult('{self.path}': part {self.part}, {len(self.shards):,} shards, "
            f"{self.images:,} images, {self.made:,} made, {len(self.missing):,} shards missing)"
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        unfinished = [str(part) for part in self.unfinished]
        own = {"path": str(self.path), "part": str(self.part), "unfinished": unfinished}
        return {**asdict(self), **own}


@dataclass(kw_only=True)
class MadeShards:
    """Shards that a run made, and what it took."""

    shards: dict[str, FinishedShard] = field(default_factory=dict)
    """By name; their bytes are in the staging folder."""
    samples: int = 0
    published: bool = True
    """False where the output folder holds the version already."""
    reused: int = 0
    """Records whose embeddings were taken from an earlier version."""
    times: StageTimes = field(default_factory=lambda: StageTimes(STAGES))
    turned: set[str] = field(default_factory=set)
    """Ids of images whose metadata state an orientation other than upright."""
    notes: tuple[str, ...] = ()
    """Why something that was there already was made again."""
    counts: ShardCounts = field(default_factory=ShardCounts)
    """Of all shards that were wanted."""

    def add(self, other: MadeShards) -> None:
        """Count the shards that another process made, and what it took, among these."""
        self.shards |= other.shards
        self.samples += other.samples
        self.reused += other.reused
        self.times.add_all(other.times.seconds())
        self.turned |= other.turned
        self.notes += tuple(note for note in other.notes if note not in self.notes)
