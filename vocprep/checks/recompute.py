"""Check a dataset version by making its records again from its images and label maps.

All targets are recomputed; embeddings of a seeded choice of images, or of all. In the numerics
class that the version was made in they must have the same bits, in another they must be within the
tolerance of ``vocprep.checks.deviation``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from vocprep.building.output.components import components_of
from vocprep.building.pipeline import is_compiled, make_embedders, make_records
from vocprep.building.plan import BuildPlan
from vocprep.building.reuse import StoredEmbeddings
from vocprep.building.stages import Embeddings, FindEmbeddings, Outcome, SampleStages
from vocprep.checks.deviation import EMBEDDING_TOLERANCES, Deviation, measure_deviation
from vocprep.checks.head_outputs import (
    HEAD_OUTPUT_TOLERANCES,
    EmbeddingPair,
    HeadOutputDeviation,
    compare_head_outputs,
)
from vocprep.checks.remake import RemakeSources, plan_remake
from vocprep.checks.report import Difference, Report, changed
from vocprep.data_dir.layout import SampleRef
from vocprep.data_dir.place import default_data_place
from vocprep.features.devices import choose_devices, numerics_class
from vocprep.features.weights import WeightsOrigin
from vocprep.files.ids import image_id_of, is_plain
from vocprep.options import BuildOptions, Layout, VerifyOptions
from vocprep.progress import NO_PROGRESS, Progress, advancing, task
from vocprep.recipe import differing_fields
from vocprep.shards.index import DATASET_FILE, DatasetIndex
from vocprep.shards.reader import ShardDataset
from vocprep.shards.record import Record
from vocprep.shards.samples import QUARANTINE_FILE, SampleEntry
from vocprep.shards.version import Version

IsChosen = Callable[[str], bool]
MOST_PAIRS = 32
"""Records whose embeddings are also compared through heads."""
_COMPARED = ("split", "grid", "image_sha256", "label_sha256", "targets_sha256")


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """How far recomputed embeddings are from the stored ones, and what heads make of that."""

    numerics_class_differences: tuple[str, ...]
    """Fields in which this machine's numerics class is not the version's."""
    embeddings: Deviation
    """Of the stored embeddings from the recomputed ones."""
    embeddings_from_fp32: Deviation | None
    """Of the stored embeddings from those of fp32, where the precision is another."""
    head_outputs: HeadOutputDeviation
    """Of outputs from stored embeddings from those from recomputed ones."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        differences = list(self.numerics_class_differences)
        return {**asdict(self), "numerics_class_differences": differences}

    def notes(self, index: DatasetIndex) -> list[str]:
        """Return in words what was measured, and by which rule it was judged."""
        recipe, other = index.recipe, self.numerics_class_differences
        rule = (
            f"within tolerances: recomputed in another numerics class ({'; '.join(other)})"
            if other
            else "to the bit: recomputed in the same numerics class"
        )
        notes = [
            f"embeddings compared {rule}",
            f"embeddings of {self.embeddings.patches:,} patches recomputed: {self.embeddings}",
        ]
        if self.embeddings_from_fp32 is not None:
            notes.append(f"{recipe.precision} from fp32, same patches: {self.embeddings_from_fp32}")
        heads, allowed = self.head_outputs, HEAD_OUTPUT_TOLERANCES[recipe.embedding_dtype]
        notes.append(
            "outputs of untrained heads from embeddings as stored, and as recomputed before they "
            f"are rounded to {recipe.embedding_dtype}, deviate by "
            f"{heads.class_logits:.2g} (class logits) and {heads.mask_logits:.2g} (mask logits) "
            f"of the largest, allowed {allowed:g}"
        )
        return notes


@dataclass(frozen=True, kw_only=True)
class RecomputeResult:
    """The report of a recomputation, and its measurements."""

    report: Report
    measurements: Measurements
    pairs: tuple[EmbeddingPair, ...]
    """Of the first ``MOST_PAIRS`` recomputed records."""


def recompute(
    dataset: ShardDataset, options: VerifyOptions, progress: Progress = NO_PROGRESS
) -> RecomputeResult:
    """Make the records of a version again by its own recipe, and compare. Nothing is written.

    Raises DataError when the data dir, weights or manifest do not give the version's recipe.
    """
    plan = _plan(dataset, options)
    build_options = BuildOptions(device=options.device, workers=options.workers)
    is_chosen = _choose(dataset, options)
    stored = StoredEmbeddings(dataset.path, dataset.version)
    comparison = _Comparison(dataset=dataset, stored=stored, options=build_options)
    progress.begin("images", len(plan.samples), 0)
    try:
        with _remake(plan, comparison.embeddings_to_keep(is_chosen), build_options) as outcomes:
            for outcome in outcomes:
                comparison.add(outcome, is_chosen=is_chosen(outcome.sample.image_id))
                progress.advance(1)
    finally:
        progress.end()
    from_fp32 = None
    if plan.recipe.precision != "fp32":
        from_fp32 = _measure_from_fp32(plan, is_chosen, stored, build_options, progress)
    return comparison.result(from_fp32)


def _plan(dataset: ShardDataset, options: VerifyOptions) -> BuildPlan:
    """Plan the version's build, by default with the weights file that the build noted."""
    index, weights = dataset.index, options.weights
    if weights is None:
        origin = WeightsOrigin.of_version(dataset.path, index.weights, index.recipe.weights_sha256)
        if origin is not None and Path(origin.weights).is_file():
            weights = origin.weights
    sources = RemakeSources(
        data_dir=options.data_dir or default_data_place(),
        dataset=options.datasets[0] if options.datasets else None,
        weights=weights,
        weights_label=index.weights,
        backbone=options.backbone,
        components=components_of(dataset.path, index),
    )
    layout = Layout(format=index.container, samples_per_shard=index.samples_per_shard)
    return plan_remake(index.recipe, layout, sources)


def _choose(dataset: ShardDataset, options: VerifyOptions) -> IsChosen:
    """Return which images, by their ids, have their embeddings recomputed."""
    images = sum(span.images for span in dataset.version.spans.values())
    if options.samples is None or options.samples >= images:
        return lambda _: True
    generator = np.random.default_rng(options.seed)
    places = set(generator.permutation(images)[: options.samples].tolist())
    ids = (each.id for each in dataset.version.stream_samples() if is_plain(each.id))
    return {image_id for place, image_id in enumerate(ids) if place in places}.__contains__


class _StoredLines:
    """The lines of a version's records by image, which is asked for as a plan has the images."""

    def __init__(self, version: Version) -> None:
        self._version = version
        self._split: str | None = None
        self._lines: Iterator[tuple[str, list[SampleEntry]]] = iter(())
        self._next: tuple[str, list[SampleEntry]] | None = None

    def of(self, sample: SampleRef) -> dict[str, SampleEntry]:
        """Return the lines of the records of an image, by record id; of its split in id order."""
        if self._split != sample.split:
            self._split, of_split = sample.split, sample.split
            lines = (each for each in self._version.stream_samples() if each.split == of_split)
            by_image = groupby(lines, key=lambda each: image_id_of(each.id))
            self._lines = ((image_id, list(group)) for image_id, group in by_image)
            self._next = next(self._lines, None)
        while self._next is not None and self._next[0] < sample.image_id:
            self._next = next(self._lines, None)
        if self._next is None or self._next[0] != sample.image_id:
            return {}
        return {each.id: each for each in self._next[1]}


def _remake(
    plan: BuildPlan,
    find: FindEmbeddings,
    options: BuildOptions,
    samples: Sequence[SampleRef] | None = None,
) -> AbstractContextManager[Iterator[Outcome[list[Record]]]]:
    """Make records whose embeddings are float32, so that the loss by storage can be measured."""
    chosen = plan.samples if samples is None else samples
    recipe = replace(plan.recipe, embedding_dtype="float32")
    return make_records(
        chosen,
        SampleStages(
            recipe=recipe,
            label_space=plan.label_space,
            label_rule=plan.label_rule,
            data_dir=plan.data_dir,
            find_embeddings=find,
        ),
        make_embedders(
            recipe,
            plan.weights,
            choose_devices(options.device),
            compiled=is_compiled(recipe, len(chosen), options),
            required=bool(options.compiled),
            components=plan.components,
        ),
        options,
    )


def _measure_from_fp32(
    plan: BuildPlan,
    is_chosen: IsChosen,
    stored: StoredEmbeddings,
    options: BuildOptions,
    progress: Progress,
) -> Deviation:
    """Measure the stored embeddings against those that fp32 gives."""
    in_fp32 = replace(plan, recipe=replace(plan.recipe, precision="fp32"))
    samples = [sample for sample in plan.samples if is_chosen(sample.image_id)]
    eager = replace(options, compiled=False)
    found = Deviation()
    with (
        task(progress, "images in fp32", len(samples)),
        _remake(in_fp32, lambda *_: None, eager, samples) as outcomes,
    ):
        for outcome in advancing(outcomes, progress):
            for record in outcome.made or ():
                embeddings = stored.find(record.image_id, record.image_sha256)
                if embeddings is not None:
                    found += measure_deviation(embeddings, record.embeddings)
    return found


class _Comparison:
    """Recomputed records against stored ones, added up."""

    def __init__(
        self, dataset: ShardDataset, stored: StoredEmbeddings, options: BuildOptions
    ) -> None:
        self._index, self._stored = dataset.index, stored
        self._lines = _StoredLines(dataset.version)
        self._quarantined = {bad.id for bad in dataset.quarantined}
        devices, precision = choose_devices(options.device), dataset.index.recipe.precision
        here = numerics_class(devices, options.decoder, precision)
        self._class_differences = tuple(differing_fields(self._index.numerics_class, here))
        self._classes = max(dataset.label_space.names) + 1
        self._matching = 0
        self._deviation = Deviation()
        self._differences: list[Difference] = []
        self._pairs: list[EmbeddingPair] = []

    def embeddings_to_keep(self, is_chosen: IsChosen) -> FindEmbeddings:
        """Return the look-up of stored embeddings that gives none for the chosen images."""

        def find(record_id: str, image_sha256: str) -> Embeddings | None:
            if is_chosen(image_id_of(record_id)):
                return None
            return self._stored.find(record_id, image_sha256)

        return find

    def add(self, outcome: Outcome[list[Record]], *, is_chosen: bool) -> None:
        """Compare the records of one image, or the reason why there are none."""
        image_id = outcome.sample.image_id
        if outcome.quarantined is not None or image_id in self._quarantined:
            self._add_quarantined(outcome)
            return
        entries = self._lines.of(outcome.sample)
        for record in outcome.made or ():
            entry = entries[record.image_id]
            details = list(_differing_fields(record, entry))
            if is_chosen:
                details += self._compare_embeddings(record, entry)
            self._matching += not details
            for detail in details:
                self._differ(entry.shard, record.image_id, detail)

    def _add_quarantined(self, outcome: Outcome[list[Record]]) -> None:
        """Compare an image that is quarantined now, in the version, or in both."""
        image_id = outcome.sample.image_id
        if outcome.quarantined is None:
            self._differ(QUARANTINE_FILE, image_id, "was quarantined, and is not any more")
        elif image_id not in self._quarantined:
            shard = self._lines.of(outcome.sample)[image_id].shard
            self._differ(shard, image_id, f"cannot be used any more: {outcome.problem}")
        else:
            self._matching += 1

    def _compare_embeddings(self, record: Record, entry: SampleEntry) -> Iterator[str]:
        """Yield in words how recomputed embeddings are not within what is allowed."""
        stored = self._stored.find(record.image_id, entry.image_sha256)
        if stored is None or stored.shape != record.embeddings.shape:
            yield "embeddings: the stored ones are damaged or of another shape"
            return
        rounded = record.embeddings.astype(stored.dtype)
        found = measure_deviation(stored, rounded)
        self._deviation += found
        if len(self._pairs) < MOST_PAIRS:
            unrounded = record.embeddings.astype(np.float32)
            self._pairs.append(EmbeddingPair(grid=record.grid, stored=stored, recomputed=unrounded))
        tolerance = EMBEDDING_TOLERANCES[self._index.recipe.precision]
        if not self._class_differences and not np.array_equal(stored, rounded):
            yield f"embeddings: expected the same bits, found {found}"
        elif not found.within(tolerance):
            yield f"embeddings: {found}, allowed {tolerance}"

    def _differ(self, path: str, record_id: str, detail: str) -> None:
        self._differences.append(changed(path, f"record {record_id}: {detail}"))

    def result(self, from_fp32: Deviation | None) -> RecomputeResult:
        """Compare through heads, and return everything that was found."""
        recipe = self._index.recipe
        outputs = compare_head_outputs(self._pairs, self._classes)
        allowed = HEAD_OUTPUT_TOLERANCES[recipe.embedding_dtype]
        differences = list(self._differences)
        if not self._class_differences and outputs.largest > allowed:
            detail = f"heads: outputs deviate by {outputs.largest:.2g}, allowed {allowed:g}"
            differences.append(changed(DATASET_FILE, detail))
        return RecomputeResult(
            report=Report.of("recompute", self._matching, differences),
            measurements=Measurements(
                numerics_class_differences=self._class_differences,
                embeddings=self._deviation,
                embeddings_from_fp32=from_fp32,
                head_outputs=outputs,
            ),
            pairs=tuple(self._pairs),
        )


def _differing_fields(record: Record, entry: SampleEntry) -> Iterator[str]:
    """Yield in words what of a record, its embeddings left out, is not as stored."""
    recomputed = SampleEntry.of(record, entry.shard, entry.row)
    for name in _COMPARED:
        expected, found = getattr(entry, name), getattr(recomputed, name)
        if expected != found:
            yield f"{name}: stored {expected}, recomputed {found}"
