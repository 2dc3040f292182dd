"""All that one viewer shows: versions, runs, an audit, and what is computed of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vocprep.errors import UsageError
from vocprep.pages.viewer.background import Background, Task
from vocprep.pages.viewer.options import ViewOptions
from vocprep.pages.viewer.queries import Query
from vocprep.pages.viewer.versions import ShownVersion
from vocprep.progress import NO_PROGRESS, Progress
from vocprep.shards.reader import ShardDataset
from vocprep.storage.places import Place, parse_place

_KEYS = ("a", "b")
"""Of the versions that stand side by side."""
_STOP_SECONDS = 3.0


class Session:
    """The opened versions and runs of one viewer."""

    def __init__(self, versions: Sequence[ShownVersion]) -> None:
        self.versions = {version.key: version for version in versions}
        self._background = Background(self._tasks())

    @classmethod
    def open(
        cls,
        paths: Sequence[str | Place],
        options: ViewOptions,
        progress: Progress = NO_PROGRESS,
    ) -> Session:
        """Open versions and runs; raises what ``ShardDataset.open`` and ``load_run`` do."""
        places = [parse_place(path) for path in paths]
        if not 1 <= len(places) <= len(_KEYS):
            raise UsageError(
                f"expected one or two dataset versions, found {len(places)}; give SHARDS, and two "
                "of them to compare these"
            )
        datasets = [ShardDataset.open(place) for place in places]
        return cls(
            [
                ShownVersion(key, dataset, options, progress)
                for key, dataset in zip(_KEYS, datasets, strict=False)
            ]
        )

    def start(self) -> None:
        """Begin what is computed in the background."""
        self._background.start([v.columns for v in self.versions.values() if v.is_local])

    def stop(self) -> None:
        """End it."""
        self._background.stop(_STOP_SECONDS)

    def version(self, query: Query) -> ShownVersion:
        """Return the version that a query names, the first where it names none."""
        return self.versions[query.choice("v", list(self.versions), "a")]

    def _tasks(self) -> list[Task[Any]]:
        return [version.columns for version in self.versions.values()]

    def to_json(self) -> dict[str, Any]:
        """Return what the page shows before anything else, and how far computations are."""
        return {"versions": [v.to_json() for v in self.versions.values()], "runs": []}
