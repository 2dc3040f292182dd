"""Publishing: an output folder gets a whole dataset version, or keeps the old one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from vocprep.building.assemble import SIDE_FILES, assemble
from vocprep.building.finish import FinishedShard, finish_shard
from vocprep.building.output.sources import image_samples
from vocprep.building.output.staging import Staging
from vocprep.building.plan import SHARD_NAME, BuildKey, BuildPlan, ShardPlan, cut_shards
from vocprep.building.stages import STAGES
from vocprep.data_dir.image_ids import ImageIds
from vocprep.errors import DataError, ShardError, UsageError
from vocprep.files.ids import image_id_of, record_order
from vocprep.files.locking import LOCK, alone_in, file_lock
from vocprep.files.names import TEMPORARY_PREFIX, WEIGHTS_HINT, is_clutter
from vocprep.files.replacing import Replacement, empty_staging
from vocprep.files.writing import check_output_folder, disk_advice, remove_path
from vocprep.labels.label_space import LabelSpace, load_label_space
from vocprep.manifests import manifest_names
from vocprep.options import IfExists, Layout
from vocprep.recipe import Recipe, differing_choices, joined_differences, precision_advice
from vocprep.shards.index import (
    DATASET_FILE,
    DatasetIndex,
    has_index,
    read_index,
    write_index,
)
from vocprep.shards.record import Record, record_ids_of
from vocprep.shards.version import Version
from vocprep.storage.places import Place, local_path
from vocprep.storage.store import StorePath
from vocprep.validation import explain
from vocprep.views import is_crop

_RECORDS = f"{TEMPORARY_PREFIX}records"
"""Staging folder of ``write_dataset``."""
_TOGETHER = 4096
"""Ids that are looked up at a time."""
_NO_SECONDS = dict.fromkeys(STAGES, 0.0)


@dataclass(frozen=True, kw_only=True)
class Output:
    """A locked output folder."""

    path: Path
    staging: Staging
    earlier: Version | None
    """The finished version that it holds, unless it is damaged or to be overwritten."""
    notes: tuple[str, ...] = ()
    """Why nothing of a damaged version can be reused."""
    is_part: bool = False
    """Whether processes share the folder, each of which may make a part only."""

    @property
    def made_at(self) -> Path:
        """Where the shards are before the version is published."""
        return self.staging.path

    def publish(self, version: Version, plan: BuildPlan) -> bool:
        """Give a version, whose shards are staged, its place: with an error ``path`` keeps its own.

        All of it is written before the first file gets its final name.
        """
        out, staging = self.path, self.staging
        staging.check(version.index.shards)
        write_weights_hint(staging.path, plan)
        _commit(version_exchange(out, staging.path), version.index)
        for path in out.glob(f"{TEMPORARY_PREFIX}*"):
            with suppress(OSError):  # the next build deletes it
                remove_path(path)
        return True


@contextmanager
def open_output(
    out: Path,
    key: BuildKey,
    if_exists: IfExists,
    note: Callable[[str], None] = lambda _text: None,
) -> Iterator[Output]:
    """Lock ``out``, check that a dataset version may be written there, and begin its staging.

    Shards that a failed build has finished stay in the staging folder. Raises UsageError when
    ``out`` holds other things, or a version that the new one may not succeed. ``note`` is called
    where the file system of ``out`` has no file locks.
    """
    with hold_output(out, note):
        staging = Staging(out)
        version_exchange(out, staging.path).restore()
        refuse_foreign_files(out)
        if not staging.holds_shards():
            staging.remove()
        if if_exists == "fail":
            refuse_existing(out, staging)
        earlier, notes = None, list[str]()
        if if_exists == "resume":
            refuse_other_staging(out, staging, key)
            earlier = _read_earlier(out, key, notes.append) if has_index(out) else None
        staging.begin(key)
        try:
            yield Output(path=out, staging=staging, earlier=earlier, notes=tuple(notes))
        finally:
            staging.remove_if_empty()


@contextmanager
def share_output(
    out: Path, key: BuildKey, note: Callable[[str], None] = lambda _text: None
) -> Iterator[Output]:
    """Lock ``out`` for processes that make parts of one build, and begin or join its staging.

    As ``open_output`` with ``if_exists`` resume, but nothing that another process may be using is
    deleted: a staging folder of another build is a UsageError, and none is removed at the end.
    """
    with hold_output(out, note, shared=True):
        staging, notes = Staging(out), list[str]()
        with alone_in(out):  # no build holds the lock now, but other parts may begin as well
            version_exchange(out, staging.path).restore()
            refuse_foreign_files(out)
            _refuse_other_parts(out, staging, key)
            staging.begin(key, shared=True)
        earlier = _read_earlier(out, key, notes.append) if has_index(out) else None
        yield Output(path=out, staging=staging, earlier=earlier, notes=tuple(notes), is_part=True)


@contextmanager
def hold_output(out: Path, note: Callable[[str], None], *, shared: bool = False) -> Iterator[None]:
    """Hold the output folder's file lock, for parts ``shared`` with other parts.

    UsageError when another build holds it, DataError when there is no writing there.
    """
    busy = f"{out}: another build is writing there; wait for it or choose another --out"
    check_output_folder(out)
    with ExitStack() as stack:
        try:
            out.mkdir(parents=True, exist_ok=True)
            lock = file_lock(out / LOCK, busy=busy, note=note, shared=shared)
            stack.enter_context(lock)
        except OSError as error:
            raise DataError(
                f"{out}: cannot be written to: {explain(error)}; {disk_advice(error)}, or choose "
                "another --out, then run the same command again"
            ) from error
        yield


def refuse_foreign_files(out: Path, other: str = "an empty --out") -> None:
    """Refuse a folder that holds anything but a dataset version; ``other`` is what to choose."""
    for path in sorted(out.iterdir()):
        name = path.name
        if name.startswith(TEMPORARY_PREFIX) or is_version_file(name) or is_clutter(name):
            continue
        raise UsageError(
            f"{out}: holds {path.name!r}, which is no part of a dataset version; choose {other}"
        )


def is_version_file(name: str) -> bool:
    """Return whether a dataset version can hold a file of this name."""
    known = (*SIDE_FILES, DATASET_FILE, LOCK, WEIGHTS_HINT)
    return name in known or SHARD_NAME.fullmatch(name) is not None


def refuse_existing(out: Path, staging: Staging) -> None:
    """Refuse a folder that holds a version or an unfinished one, as ``--if-exists fail`` says."""
    if has_index(out) or staging.read_key() is not None:
        state = "a finished dataset version" if has_index(out) else "an unfinished build"
        raise UsageError(
            f"{out}: holds {state} and --if-exists is fail; nothing was done: choose another "
            "--out, or --if-exists resume or overwrite"
        )


def refuse_other_staging(out: Path, staging: Staging, key: BuildKey) -> None:
    """Refuse to discard the unfinished build of another recipe or layout."""
    found = staging.read_key()
    if found is not None and not has_index(out):
        refuse_differing(out, "an unfinished build", found, key.to_json())


def _refuse_other_parts(out: Path, staging: Staging, key: BuildKey) -> None:
    """Refuse to make parts where those of another build are."""
    found = staging.read_key()
    if found is not None:
        advice = f"delete {staging.path} where nothing is being built"
        refuse_differing(out, "an unfinished build", found, key.to_json(), advice)


def _read_earlier(out: Path, key: BuildKey, note: Callable[[str], None]) -> Version | None:
    """Read the finished version; UsageError when the new one may not succeed it."""
    refuse_other_recipe(out, read_index(out), key)
    try:
        earlier = Version.read(out)
        _refuse_left_out(out, earlier, key.plan.left_out)
    except ShardError as error:
        note(useless_note(error))
        return None
    return earlier


def useless_note(error: ShardError) -> str:
    """Return the note of a build that can reuse nothing of the version that it succeeds."""
    problem = str(error).rpartition("; ")[0]  # without its advice
    return f"{problem}: nothing of the earlier version is reused, its records are made again"


def _refuse_left_out(out: Path, earlier: Version, left_out: ImageIds) -> None:
    """Refuse to leave images out of a version that the dataset still lists."""
    if not left_out:
        return
    images, lost, first = 0, 0, ""
    samples = image_samples(earlier)
    while block := [sample.id for sample in islice(samples, _TOGETHER)]:
        images += len(block)
        places = left_out.places(block)
        lost += len(places)
        first = first or (left_out[int(places[0])] if len(places) else "")
    if lost:
        raise UsageError(
            f"{out}: holds {images:,} images, {lost:,} of which --splits or --limit leave out, "
            f"e.g. {first}; choose another --out, or --if-exists overwrite"
        )


def refuse_other_recipe(out: Place, index: DatasetIndex, key: BuildKey) -> None:
    """Raise UsageError when a finished version is of another recipe or layout than a build."""
    found = {
        **index.recipe.to_json(),
        "container": index.container,
        "samples_per_shard": index.samples_per_shard,
    }
    expected = {name: value for name, value in key.to_json().items() if name in found}
    del found["splits"]
    refuse_differing(out, "a finished dataset version", found, expected)


def refuse_differing(
    out: Place,
    state: str,
    found: dict[str, Any],
    expected: dict[str, Any],
    otherwise: str = "--if-exists overwrite",
) -> None:
    """Raise UsageError when what is there, in words, is of other choices than a build."""
    differing = differing_choices(found, expected)
    if differing:
        advice = precision_advice(differing, found.get("precision"))
        of = "of another recipe or layout"
        if all(line.startswith("versions.") for line in differing):
            of, advice = "by other versions", "finish it with those, "
        raise UsageError(
            f"{out}: holds {state} {of}, there and here: "
            f"{joined_differences(differing)}; {advice}choose another --out, or {otherwise}"
        )


def write_weights_hint(out: Place, plan: BuildPlan) -> None:
    """Write where the weights were read from beside a version, so that ``train`` can pass it on.

    Not in an object store, which other machines read.
    """
    if isinstance(out, StorePath):
        return
    if plan.weights_origin is None:
        (out / WEIGHTS_HINT).unlink(missing_ok=True)
    else:
        plan.weights_origin.write(out / WEIGHTS_HINT)


def version_exchange(out: Path, staged: Path) -> Replacement:
    """Return the exchange of the version that a folder holds for a staged one."""
    return Replacement(
        folder=out,
        staged=staged,
        marker=DATASET_FILE,
        is_own=lambda name: name != LOCK and is_version_file(name),
    )


def _commit(exchange: Replacement, index: DatasetIndex) -> None:
    """Write dataset.json beside the other staged files, and exchange all of them."""
    staged = exchange.staged
    write_index(staged, index)
    names = {*(entry.name for entry in (*index.shards, *index.files)), DATASET_FILE}
    if (staged / WEIGHTS_HINT).exists():
        names.add(WEIGHTS_HINT)
    exchange.commit(names)


def write_dataset(
    out: str | Path,
    recipe: Recipe,
    splits: Mapping[str, Sequence[Record]],
    layout: Layout | None = None,
    *,
    label_space: LabelSpace | None = None,
    numerics_class: Mapping[str, str] | None = None,
) -> DatasetIndex:
    """Write records of one's own, in the order given, as a dataset version; return its index.

    ``recipe`` describes the records. ``label_space`` is theirs, by default the shipped one of the
    recipe; UsageError when its digest is not the recipe's, or when ``out`` holds a version already.
    ``numerics_class`` is what computed the embeddings.
    """
    out, layout = local_path(out), layout or Layout()
    if has_index(out):
        raise UsageError(f"{out}: holds a finished dataset version; choose another folder")
    plan = _plan_of_records(out, recipe, layout, label_space)
    key = BuildKey(plan=plan, numerics_class=dict(numerics_class or {}))
    exchange = version_exchange(out, out / _RECORDS)
    with hold_output(out, lambda _: None):
        exchange.restore()
        if has_index(out):
            raise UsageError(f"{out}: holds a finished dataset version; choose another folder")
        staging = Staging(out, _RECORDS)
        with empty_staging(staging.path) as staged:
            shards = _write_shards(staging, splits, layout, recipe)
            version = assemble(key, shards, staging.samples, staged, _NO_SECONDS)
            _commit(exchange, version.index)
    return version.index


def _write_shards(
    staging: Staging, splits: Mapping[str, Sequence[Record]], layout: Layout, recipe: Recipe
) -> dict[str, FinishedShard]:
    """Encode and stage the shards of records, and return them by name."""
    finished = {}
    for split, records in splits.items():
        for name, groups in cut_shards(split, _groups(records, recipe, split), layout):
            members = [record for group in groups for record in group]
            shard = finish_shard(ShardPlan(name=name, split=split, samples=()), members, [], layout)
            staging.add(name, shard)
            finished[name] = shard.finished
    return finished


def _groups(records: Iterable[Record], recipe: Recipe, split: str) -> list[list[Record]]:
    """Return records in id order, in groups that no end of a shard separates.

    These are single records; of a recipe with crops all views of an image. UsageError where one
    lacks some, or where there are crops that the recipe does not have.
    """
    ordered = sorted(records, key=lambda record: record_order(record.image_id))
    if recipe.crops is None and not any(is_crop(record.image_id) for record in ordered):
        return [[record] for record in ordered]
    groups = groupby(ordered, key=lambda record: image_id_of(record.image_id))
    found = {image_id: list(group) for image_id, group in groups}
    for image_id, group in found.items():
        expected = list(record_ids_of([image_id], recipe.record_views))
        if [record.image_id for record in group] != expected:
            raise UsageError(
                f"records of image {image_id} in split {split}: expected those of the views of the "
                f"recipe, {', '.join(expected)}"
            )
    return list(found.values())


def _plan_of_records(
    out: Path, recipe: Recipe, layout: Layout, label_space: LabelSpace | None
) -> BuildPlan:
    """Return the plan of records that were made elsewhere."""
    if label_space is None:
        schema = recipe.schema
        if schema.name not in manifest_names("labels"):
            raise UsageError(
                f"label space {schema.name!r} is not a shipped one: give it as label_space"
            )
        label_space = load_label_space(schema.name, void_unknown=schema.void_unknown)
    if label_space.sha256 != recipe.schema.sha256:
        raise UsageError(
            f"label space {label_space.name}: expected the recipe's, of sha256 "
            f"{recipe.schema.sha256[:12]}…, found {label_space.sha256[:12]}…; give the label "
            "space that the records are of"
        )
    return BuildPlan(
        data_dir=out,
        recipe=recipe,
        label_space=label_space,
        layout=layout,
        weights={},
        weights_label="made elsewhere",
        shards=(),
    )
