"""All that one viewer shows: versions, runs, an audit, and what is computed of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vocprep.auditing.result import AuditResult, read_audit
from vocprep.errors import DataError, UsageError
from vocprep.features.devices import choose_device
from vocprep.heads.runs.run import load_run
from vocprep.heads.scoring.evaluate import runs_and_versions
from vocprep.heads.scoring.matching import choose_dataset
from vocprep.pages.viewer.options import ViewOptions
from vocprep.pages.viewer.queries import NotFoundError, Query
from vocprep.pages.viewer.shown.audited import AuditedPictures
from vocprep.pages.viewer.shown.background import Background, Task
from vocprep.pages.viewer.shown.runs import ShownRun
from vocprep.pages.viewer.shown.versions import ShownVersion
from vocprep.progress import NO_PROGRESS, Progress
from vocprep.shards.reader import ShardDataset
from vocprep.storage.places import Place, parse_place
from vocprep.validation import printable

_KEYS = ("a", "b")
"""Of the versions that stand side by side."""
_MOST_RUNS = 10
CHANGES = ("same", "embeddings", "targets", "both", "only")
"""How a picture differs between two versions, the least first."""
_NO_CHANGE = -1
"""Of what is in quarantine."""
_MOST_INDEXED = 1 << 30
"""Bytes of shards up to which patches are indexed before somebody searches."""
_STOP_SECONDS = 3.0


class Session:
    """The opened versions and runs of one viewer."""

    def __init__(self, versions: Sequence[ShownVersion], runs: Sequence[ShownRun] = ()) -> None:
        self.versions = {version.key: version for version in versions}
        self.runs = {run.key: run for run in runs}
        self._changes: dict[str, NDArray[np.int8]] = {}
        columns = [version.columns for version in versions]
        indexes = [task for version in versions for task in version.similar.values()]
        scores = [run.scoring for run in runs]
        self._background = Background([*columns, *indexes, *scores])

    @classmethod
    def open(
        cls,
        paths: Sequence[str | Place],
        options: ViewOptions,
        progress: Progress = NO_PROGRESS,
    ) -> Session:
        """Open versions and runs; raises what ``ShardDataset.open`` and ``load_run`` do.

        RunError where a run fits none of the versions.
        """
        run_paths, places = runs_and_versions([parse_place(path) for path in paths])
        if not 1 <= len(places) <= len(_KEYS):
            found = "none" if not places else f"{len(places)}"
            raise UsageError(
                f"expected one or two dataset versions, found {found}; give SHARDS, or two of them "
                "to compare these"
            )
        if len(run_paths) > _MOST_RUNS:
            raise UsageError(
                f"expected at most {_MOST_RUNS} runs, found {len(run_paths)}; leave some out"
            )
        audit = None if options.audit is None else read_audit(options.audit)
        device = choose_device(options.device)
        datasets = [ShardDataset.open(place) for place in places]
        trained = [load_run(path) for path in run_paths]
        fitting = [choose_dataset(run, datasets) for run in trained]
        versions = [
            ShownVersion(key, dataset, options, progress)
            for key, dataset in zip(_KEYS, datasets, strict=False)
        ]
        if audit is not None:
            _add_audit(audit, versions)
        runs = [
            ShownRun(str(number), run, versions[datasets.index(dataset)], device)
            for number, (run, dataset) in enumerate(zip(trained, fitting, strict=True))
        ]
        return cls(versions, runs)

    def start(self) -> None:
        """Begin what is computed in the background."""
        tasks: list[Task[Any]] = []
        local = [version for version in self.versions.values() if version.is_local]
        tasks += [version.columns for version in local]
        for version in local:
            if sum(shard.bytes for shard in version.dataset.index.shards) <= _MOST_INDEXED:
                tasks += version.similar.values()
        self._background.start([*tasks, *(run.scoring for run in self.runs.values())])

    def stop(self) -> None:
        """End it."""
        self._background.stop(_STOP_SECONDS)

    def version(self, query: Query) -> ShownVersion:
        """Return the version that a query names, the first where it names none."""
        return self.versions[query.choice("v", list(self.versions), _KEYS[0])]

    def version_and_split(self, query: Query) -> tuple[ShownVersion, str]:
        """Return the version and the split that a query names."""
        version = self.version(query)
        return version, query.choice("split", version.catalogue.split_names)

    def required_run(self, query: Query) -> ShownRun:
        """Return the run that a query must name."""
        return self.run_of(query.text("r"))

    def scored_run(self, query: Query, version: ShownVersion) -> ShownRun:
        """Return the run that a query must name, which is scored on a version.

        The classes of its scores are those of that version; another may have other ones.
        """
        run = self.required_run(query)
        if run.version is not version:
            raise NotFoundError(
                f"run {run.name}: is scored on version {run.version.key}, not on {version.key}"
            )
        return run

    def run_of(self, key: str | None) -> ShownRun:
        """Return a run by its key."""
        run = self.runs.get(key or "")
        if run is None:
            raise NotFoundError(f"run {printable(key or '', 60)!r}: the viewer shows no such run")
        return run

    def changes(self, version: ShownVersion) -> NDArray[np.int8] | None:
        """Return how each picture [N] differs in the other version: numbers of ``CHANGES``.

        −1 for what is in quarantine; None where there is no other version.
        """
        others = [other for other in self.versions.values() if other is not version]
        if not others:
            return None
        if version.key not in self._changes:
            self._changes[version.key] = compare(version, others[0])
        return self._changes[version.key]

    def to_json(self) -> dict[str, Any]:
        """Return what the page shows before anything else, and how far computations are."""
        return {
            "versions": [version.to_json() for version in self.versions.values()],
            "runs": [run.to_json() for run in self.runs.values()],
        }


def _add_audit(audit: AuditResult, versions: Sequence[ShownVersion]) -> None:
    """Add an audit to the version that it is of; DataError where it is of none of them."""
    audited = [v for v in versions if v.dataset.content_id == audit.content_id]
    if not audited:
        shown = " and ".join(version.dataset.index.short_id for version in versions)
        raise DataError(
            f"the audit is of {printable(audit.short_id)}, not of {shown}; audit that version, or "
            "leave --audit out"
        )
    for version in audited:
        version.audited = AuditedPictures(audit, version.catalogue)


def compare(version: ShownVersion, other: ShownVersion) -> NDArray[np.int8]:
    """Return how each picture [N] of a version differs in another, as ``Session.changes``."""
    one, two = version.catalogue, other.catalogue
    at = np.array([two.places.get(record_id, -1) for record_id in one.ids], dtype=np.intp)
    there = at >= 0
    there[there] = two.is_record[at[there]]
    found = np.full(len(one), CHANGES.index("only"), dtype=np.int8)
    here, at = np.flatnonzero(there), at[there]
    found[here] = (one.embeddings[here] != two.embeddings[at]) + 2 * (
        one.targets[here] != two.targets[at]
    )
    found[~one.is_record] = _NO_CHANGE
    return found
