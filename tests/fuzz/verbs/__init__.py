"""What is done with damaged files: the program's own verbs, and what must hold of their results.

A verb returns whether it found nothing wrong. It raises ``BrokenPromise`` where its result breaks
what the program promises; any other exception is for ``fuzz.judge`` to look at. Verbs run in the
folder of an input, a copy of some entries of the world.
"""

from __future__ import annotations

from functools import partial

from fuzz import world
from fuzz.verbs import data, runs, versions
from fuzz.verbs.job import BrokenPromise, Job, Verb

__all__ = ["VERBS", "BrokenPromise", "Job", "Verb"]

DATA = ("data", "space.toml")
_DATASETS = ("mat", "palette", "grey", "deep", *world.OWN)

VERBS: dict[str, Verb] = {
    "recompute": Verb(partial(versions.check, "h5", "recompute"), ("h5", "mat.toml", *DATA)),
    "diff": Verb(versions.compare, ("h5", "tar")),
    "build on": Verb(versions.build_on, ("unfinished", "mat.toml", *DATA), ("unfinished",)),
    "download": Verb(data.fetch, ("tiny.toml", "archives", "data"), ("data", "fresh")),
    "download on": Verb(data.fetch_on, ("tiny.toml", "archives", "partial"), ("partial",)),
    "list": Verb(data.list_sources, ("data",)),
    "manifests": Verb(runs.load_manifests, ("space.toml",)),
    "weights": Verb(runs.load_weights, ("weights",)),
    "open run": Verb(runs.load_run, ("run",)),
    "evaluate": Verb(runs.score, ("run", "h5", "mat.toml", *DATA)),
    "predict": Verb(runs.label, ("run", "pictures"), ("predictions",)),
    "train on": Verb(runs.train_on, ("begun", "h5", "mine.toml"), ("begun",)),
    "train": Verb(runs.train_new, ("h5", "mine.toml"), ("trained",)),
    "sample": Verb(data.sample_again, ("sample",)),
}
for _name in world.LAYOUTS:
    _lock = f"{_name}.lock.json"
    VERBS |= {
        f"read {_name}": Verb(partial(versions.read, _name), (_name,)),
        f"verify {_name}": Verb(partial(versions.check, _name, "files"), (_name,)),
        f"content {_name}": Verb(partial(versions.check, _name, "content"), (_name,)),
        f"inspect {_name}": Verb(partial(versions.look, _name), (_name,), ("new.lock.json",)),
        f"lock {_name}": Verb(partial(versions.check_lock, _name), (_name, _lock)),
        f"build locked {_name}": Verb(
            partial(versions.build_locked, _name), (_lock, "mat.toml", *DATA), ("out",)
        ),
        f"build again {_name}": Verb(
            partial(versions.build_again, _name), (_name, "mat.toml", *DATA), (_name,)
        ),
        f"reuse {_name}": Verb(
            partial(versions.reuse, _name), (_name, "mat.toml", *DATA), ("out",)
        ),
    }
for _name in _DATASETS:
    _needs = (f"{_name}.toml", *DATA)
    VERBS |= {
        f"build {_name}": Verb(partial(data.build_from, _name), _needs, ("out",)),
        f"decode {_name}": Verb(partial(data.decode_from, _name), _needs, ("decoded", "chart.png")),
        f"check {_name}": Verb(partial(data.check_data, "content", _name), _needs),
    }
VERBS["check files"] = Verb(partial(data.check_data, "files", "mat"), ("mat.toml", *DATA))
