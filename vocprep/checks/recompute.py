"""Verify a dataset version by making it again from its pictures.

All targets are made anew; embeddings of a seeded choice of pictures, or of all. In the numerics
class that the version was made in they must be the same to the bit, in another within the
tolerance of ``vocprep.checks.deviation``.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from vocprep.building.pipeline import MadeSample, make_records
from vocprep.building.plan import BuildPlan
from vocprep.building.prepare import Embeddings, FindEmbeddings, Preparation
from vocprep.building.reuse import EarlierEmbeddings
from vocprep.building.stage_times import StageTimes
from vocprep.checks.deviation import TOLERANCES, Deviation, measure
from vocprep.checks.report import Difference, Report
from vocprep.data_dir.layout import SampleRef
from vocprep.errors import UsageError
from vocprep.features.embed import choose_devices, numerics_class
from vocprep.geometry import Grid
from vocprep.options import BuildOptions
from vocprep.recipe import differing_fields
from vocprep.shards.reader import ShardDataset
from vocprep.shards.record import FLIP_SUFFIX, Record
from vocprep.shards.samples import QUARANTINE_FILE, QuarantinedSample, SampleEntry

MOST_PAIRS = 32
"""Records whose embeddings are handed on to a check through the heads."""
_COMPARED = ("split", "grid", "image_sha256", "label_sha256", "targets_sha256")


@dataclass(frozen=True, kw_only=True)
class RecomputeOptions:
    """How much is made again."""

    samples: int | None = 32
    """Pictures whose embeddings are made again, chosen by ``seed``; all when None."""
    seed: int = 0
    engine: BuildOptions = field(default_factory=BuildOptions)

    def __post_init__(self) -> None:
        """Refuse a check that looks at no embedding."""
        if self.samples is not None and self.samples < 1:
            raise UsageError(f"samples {self.samples}: expected 1 or more, or all")
        if self.seed < 0:
            raise UsageError(f"seed {self.seed}: expected 0 or more")


@dataclass(frozen=True, kw_only=True)
class EmbeddingPair:
    """A record's embeddings as stored and as made again."""

    grid: Grid
    stored: Embeddings
    """[P, D]"""
    made: NDArray[np.float32]
    """[P, D], not rounded for storage."""


@dataclass(frozen=True, kw_only=True)
class Recomputed:
    """What making a version again came to."""

    report: Report
    other_class: tuple[str, ...]
    """Fields in which this machine's numerics class is another than the version's."""
    deviation: Deviation
    """Of the stored embeddings from those made again."""
    from_fp32: Deviation | None
    """Of the stored embeddings from fp32's, for the other precisions."""
    pairs: tuple[EmbeddingPair, ...]


def recompute(
    dataset: ShardDataset,
    plan: BuildPlan,
    options: RecomputeOptions,
    on_image: Callable[[], None] = lambda: None,
) -> Recomputed:
    """Make a version again by the plan of its own recipe (``plan_again``), and compare.

    ``on_image`` is called after each picture. Nothing is written.
    """
    index, engine = dataset.index, options.engine
    numerics = numerics_class(choose_devices(engine.device), engine.decoder)
    other_class = tuple(differing_fields(index.numerics_class, numerics))
    chosen = _choose(dataset, options)
    with EarlierEmbeddings(dataset.path, index) as stored:
        comparison = _Comparison(dataset=dataset, stored=stored, is_exact=not other_class)

        def find(record_id: str, image_sha256: str) -> Embeddings | None:
            is_chosen = record_id.removesuffix(FLIP_SUFFIX) in chosen
            return None if is_chosen else stored.find(record_id, image_sha256)

        with closing(_remake(plan, plan.samples, find, engine)) as made:
            for sample, item in zip(plan.samples, made, strict=True):
                comparison.add(sample, item, is_chosen=sample.image_id in chosen)
                on_image()
        from_fp32 = None
        if plan.recipe.precision != "fp32":
            from_fp32 = _measure_fp32(plan, chosen, stored, engine)
    return Recomputed(
        report=comparison.report(),
        other_class=other_class,
        deviation=comparison.deviation,
        from_fp32=from_fp32,
        pairs=tuple(comparison.pairs),
    )


def _choose(dataset: ShardDataset, options: RecomputeOptions) -> set[str]:
    """Return the ids of the pictures whose embeddings are made again."""
    ids = sorted({sample.id.removesuffix(FLIP_SUFFIX) for sample in dataset.samples})
    if options.samples is None or options.samples >= len(ids):
        return set(ids)
    generator = np.random.default_rng(options.seed)
    return {ids[place] for place in generator.permutation(len(ids))[: options.samples]}


def _remake(
    plan: BuildPlan, samples: Sequence[SampleRef], find: FindEmbeddings, engine: BuildOptions
) -> Generator[MadeSample, None, None]:
    """Make records whose embeddings are not rounded, so that what storage costs can be seen."""
    exact = replace(plan, recipe=replace(plan.recipe, embedding_dtype="float32"))
    preparation = Preparation(plan=exact, stage_times=StageTimes(), find_embeddings=find)
    return make_records(samples, preparation, choose_devices(engine.device), engine)


def _measure_fp32(
    plan: BuildPlan, chosen: set[str], stored: EarlierEmbeddings, engine: BuildOptions
) -> Deviation:
    """Measure the stored embeddings against those that fp32 gives."""
    exact = replace(plan, recipe=replace(plan.recipe, precision="fp32"))
    samples = [sample for sample in plan.samples if sample.image_id in chosen]
    found = Deviation()
    with closing(_remake(exact, samples, lambda *_: None, replace(engine, compiled=False))) as made:
        for records in made:
            for record in [] if isinstance(records, QuarantinedSample) else records:
                embeddings = stored.find(record.image_id, record.image_sha256)
                if embeddings is not None:
                    found += measure(embeddings, record.embeddings)
    return found


@dataclass(kw_only=True)
class _Comparison:
    """What was made again, held against what is stored."""

    dataset: ShardDataset
    stored: EarlierEmbeddings
    is_exact: bool
    """Whether embeddings must be the same to the bit."""
    deviation: Deviation = field(default_factory=Deviation)
    pairs: list[EmbeddingPair] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    right: int = 0

    def __post_init__(self) -> None:
        self._entries = {sample.id: sample for sample in self.dataset.samples}
        self._bad = {bad.id for bad in self.dataset.quarantined}

    def add(self, sample: SampleRef, made: MadeSample, *, is_chosen: bool) -> None:
        """Compare what one picture gave."""
        if isinstance(made, QuarantinedSample) or sample.image_id in self._bad:
            self._add_quarantined(sample, made)
            return
        for record in made:
            details = list(self._differing(record, is_chosen=is_chosen))
            self.right += not details
            for detail in details:
                self._differ(self._entries[record.image_id].shard, record.image_id, detail)

    def _add_quarantined(self, sample: SampleRef, made: MadeSample) -> None:
        if not isinstance(made, QuarantinedSample):
            self._differ(QUARANTINE_FILE, sample.image_id, "was bad, and is not any more")
        elif sample.image_id not in self._bad:
            shard = self._entries[sample.image_id].shard
            self._differ(shard, sample.image_id, f"{made.file} is bad now: {made.reason}")
        else:
            self.right += 1

    def _differing(self, record: Record, *, is_chosen: bool) -> Iterator[str]:
        """Yield what is other than stored, in words."""
        entry = self._entries[record.image_id]
        made = SampleEntry.of(record, entry.shard, entry.row)
        for name in _COMPARED:
            expected, found = getattr(entry, name), getattr(made, name)
            if expected != found:
                yield f"{name}: stored {expected}, made again {found}"
        if not is_chosen:
            return
        stored = self.stored.find(record.image_id, entry.image_sha256)
        if stored is None or stored.shape != record.embeddings.shape:
            yield "embeddings: the stored ones are damaged or of another shape"
            return
        rounded = record.embeddings.astype(stored.dtype)
        found = measure(stored, rounded)
        self.deviation += found
        if len(self.pairs) < MOST_PAIRS:
            exact = record.embeddings.astype(np.float32)
            self.pairs.append(EmbeddingPair(grid=record.grid, stored=stored, made=exact))
        tolerance = TOLERANCES[self.dataset.index.recipe.precision]
        if self.is_exact and not np.array_equal(stored, rounded):
            yield f"embeddings: expected the same bits, found {found}"
        elif not found.within(tolerance):
            yield f"embeddings: {found}, allowed {tolerance}"

    def _differ(self, path: str, record_id: str, detail: str) -> None:
        self.differences.append(
            Difference(path=path, state="changed", detail=f"record {record_id}: {detail}")
        )

    def report(self) -> Report:
        """Return the differences as other levels do."""
        return Report(level="recompute", right=self.right, differences=tuple(self.differences))
