"""What is done with damaged files: the program's own verbs, and what must hold of their results.

A verb returns whether it found nothing wrong. It raises ``BrokenPromise`` where its result breaks
what the program promises; any other exception is for ``fuzz.judge`` to look at. Verbs run in the
folder of an input, a copy of some entries of the world.
"""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import click
from builders.records import FIELDS
from builders.version_bytes import version_bytes

import vocprep
from fuzz import world
from fuzz.pictures import has_all_pixels
from vocprep.backbones import DEFAULT_BACKBONE
from vocprep.cli.build import build_shards
from vocprep.cli.diff import diff
from vocprep.cli.download import download
from vocprep.cli.evaluate import evaluate
from vocprep.cli.inspect import inspect
from vocprep.cli.predict import predict
from vocprep.cli.sources import decode, sample
from vocprep.cli.verify import verify as verify_command
from vocprep.downloading.download import DownloadOptions
from vocprep.downloading.download import download as download_files
from vocprep.downloading.outcomes import raise_failures
from vocprep.features.weights import load_fitting_weights
from vocprep.heads.runs.presets import load_options
from vocprep.labels.label_space import load_label_space
from vocprep.manifests import load_dataset, load_source
from vocprep.options import BuildOptions, LoaderOptions, MaxFailures, VerifyOptions

ANY_FAILURES = replace(world.ENGINE, max_failures=MaxFailures(percent=100.0))
DIFFERENCES = 1


class BrokenPromise(Exception):  # noqa: N818  # what it is called in the table of failures
    """A result that contradicts what the program promises."""


@dataclass(frozen=True)
class Job:
    """One input, as far as verbs look at it."""

    world: Path
    draw: random.Random
    damaged: Mapping[str, object]
    """The changed files, by their paths."""
    sealed: bool
    """Whether digests were made to agree with the damage, as whoever made the files could."""


@dataclass(frozen=True)
class Verb:
    """A verb, the entries of the world that it needs, and those that it may change."""

    act: Callable[[Job], bool]
    needs: tuple[str, ...]
    writes: tuple[str, ...] = ()


def command(name: click.Command, *arguments: str) -> bool:
    """Run a command of the command line, without the boundary that makes errors a sentence."""
    code = name.main(list(arguments), prog_name="vocprep", standalone_mode=False)
    return code != DIFFERENCES


def digests(folder: str | Path) -> dict[str, str]:
    """Return a digest of every record of a version, over its arrays and pixels."""
    dataset = vocprep.open(folder)
    found = {}
    for shard in dataset.index.shards:
        for record in dataset.read_shard(shard.name, all_views=True):
            values = [getattr(record, name) for name in FIELDS if name != "label_png"]
            digest = hashlib.sha256(record.label_map.tobytes())
            for value in values:
                is_array = hasattr(value, "tobytes")
                digest.update(value.tobytes() if is_array else repr(value).encode())
            found[record.image_id] = digest.hexdigest()
    return found


@functools.cache
def _expected_digests(world_folder: Path, version: str) -> dict[str, str]:
    return digests(world_folder / version)


def _require_same_records(job: Job, found: dict[str, str], version: str, what: str) -> None:
    expected = _expected_digests(job.world, version)
    if found != expected:
        names = sorted(key for key in expected | found if expected.get(key) != found.get(key))
        raise BrokenPromise(f"{what}, but records {', '.join(names)[:200]} are others")


def _require_same_files(job: Job, what: str, ignored: Callable[[str], bool]) -> None:
    """Require that no damaged file differs from the sound one."""
    for name in job.damaged:
        sound = job.world / name
        found = Path(name).read_bytes() if Path(name).is_file() else None
        if not ignored(name) and (not sound.is_file() or found != sound.read_bytes()):
            raise BrokenPromise(f"{what}, but {name} was changed")


# --- dataset versions -----------------------------------------------------------------------------


def read(version: str, job: Job) -> bool:
    """Open a version and draw all of it, by shards, by batches and by ids."""
    found = digests(version)
    dataset = vocprep.open(version)
    options = LoaderOptions(batch_size=2, mode="streaming", label_maps=True, all_views=True)
    for split in dataset.splits:
        for batch in dataset.loader(
            split, job.draw.choice([options, replace(options, mode="resident")])
        ):
            _ = batch.embeddings.sum(), batch.label_maps
    for sample_entry in dataset.samples[:2]:
        dataset.record(sample_entry.id)
    _ = dataset.label_space
    if not job.sealed:
        _require_same_records(job, found, version, "read without an error")
    return True


def check(version: str, level: str, job: Job) -> bool:
    """Verify a version; where it is called good, its files and records must be the sound ones."""
    options = VerifyOptions(level=level, workers=1)
    if level == "recompute":
        options = replace(options, data_dir=Path("data"), datasets=("mat.toml",), device="cpu")
    if not vocprep.verify(version, options).ok:
        return False
    if not job.sealed:
        is_beside = {f"{version}/.lock", f"{version}/.weights.json"}
        _require_same_files(job, "verify calls it good", is_beside.__contains__)
    if not job.sealed or level != "files":
        _require_same_records(
            job, digests(version), version, f"verify --level {level} is satisfied"
        )
    return True


def check_lock(version: str, job: Job) -> bool:
    """Verify a version with a lock file, and print what differs."""
    flags = ["--json"] * job.draw.randrange(2)
    return command(verify_command, version, "--lock", f"{version}.lock.json", *flags)


def look(version: str, job: Job) -> bool:
    """Print what a version is, and lock it."""
    flags = ["--json"] * job.draw.randrange(2)
    lock = ["--lock", "new.lock.json"] * job.draw.randrange(2)
    return command(inspect, version, *flags, *lock)


def compare(job: Job) -> bool:
    """Print what differs between the two containers of one version."""
    sides = job.draw.choice([["h5", "tar"], ["tar", "h5"]])
    return command(diff, *sides, *["--json"] * job.draw.randrange(2))


def build_again(version: str, job: Job) -> bool:
    """Build into a damaged version; the result is the sound one."""
    world.build_version(version, version)
    if job.sealed:
        _require_same_records(job, digests(version), version, "built again")
    elif version_bytes(Path(version)) != _sound_bytes(job.world, version):
        raise BrokenPromise("built again without an error, but to other bytes")
    return True


@functools.cache
def _sound_bytes(world_folder: Path, version: str) -> dict[str, bytes]:
    return version_bytes(world_folder / version)


def build_on(job: Job) -> bool:
    """Go on with an interrupted build; the result is that of one without an interruption."""
    world.build_version("unfinished", "h5")
    if not job.sealed and version_bytes(Path("unfinished")) != _sound_bytes(job.world, "h5"):
        raise BrokenPromise("went on with an interrupted build, but to other bytes")
    return True


def reuse(version: str, job: Job) -> bool:
    """Build with the embeddings of a damaged version; the result is the sound one."""
    world.build_version("out", "h5", options=replace(world.ENGINE, reuse=Path(version)))
    if not job.sealed and version_bytes(Path("out")) != _sound_bytes(job.world, "h5"):
        raise BrokenPromise("reused embeddings without an error, but built other bytes")
    return True


def build_locked(version: str, job: Job) -> bool:
    """Build what a lock file pins."""
    options = BuildOptions(device="cpu", workers=1, compiled=False)
    lock = f"{version}.lock.json"
    if job.draw.random() < 0.3:
        arguments = ["--lock", lock, "--out", "out", "--data-dir", "data", "--dry-run", "mat.toml"]
        return command(build_shards, *arguments, "--device", "cpu")
    vocprep.build_locked(lock, out="out", dataset="mat.toml", data_dir="data", options=options)
    return True


# --- data dirs ------------------------------------------------------------------------------------


def build_from(dataset: str, job: Job) -> bool:
    """Build from a data dir with damaged files: verify must call the result good."""
    options = job.draw.choice([world.ENGINE, ANY_FAILURES])
    if job.draw.random() < 0.2:
        arguments = [f"{dataset}.toml", "--data-dir", "data", "--weights", "random:0"]
        arguments += ["--out", "out", "--geometry", "native", "--device", "cpu", "--dry-run"]
        return command(build_shards, *arguments, *["--json"] * job.draw.randrange(2))
    vocprep.build(
        f"{dataset}.toml",
        out="out",
        data_dir="data",
        weights=world.WEIGHTS,
        choices=world.CHOICES,
        layout=world.LAYOUTS[job.draw.choice(["h5", "tar"])],
        options=options,
    )
    if not vocprep.verify("out", VerifyOptions(level="content", workers=1)).ok:
        raise BrokenPromise("built without an error what verify --level content refuses")
    _require_whole_pictures(job, {bad.id for bad in vocprep.open("out").quarantined})
    return True


def _require_whole_pictures(job: Job, refused: Collection[str] = ()) -> None:
    """Require that no damaged picture or mask that was read ends early."""
    for name in job.damaged:
        path = Path(name)
        if path.stem not in refused and path.suffix in (".png", ".jpg") and path.is_file():
            data = path.read_bytes()
            if not (has_all_pixels(data) if path.suffix == ".png" else b"\xff\xd9" in data):
                raise BrokenPromise(f"{name} was read without an error, but its pixels end early")


def decode_from(dataset: str, job: Job) -> bool:
    """Decode the label maps of a data dir."""
    flags = ["--json"] * job.draw.randrange(2)
    flags += ["--chart", "chart.png"] * (job.draw.random() < 0.1)
    arguments = [f"{dataset}.toml", "--data-dir", "data", "--out", "decoded", "--workers", "1"]
    done = command(decode, *arguments, *flags)
    _require_whole_pictures(
        job, {path.stem for path in map(Path, job.damaged) if path.suffix != ".png"}
    )
    return done


def check_data(level: str, dataset: str, job: Job) -> bool:
    """Verify a data dir; where it is called good, its files must be the sound ones."""
    if job.draw.random() < 0.2:
        arguments = ["data", "--level", level, "--dataset", f"{dataset}.toml", "--workers", "1"]
        return command(verify_command, *arguments, *["--json"] * job.draw.randrange(2))
    options = VerifyOptions(level=level, datasets=(f"{dataset}.toml",), workers=1)
    if not vocprep.verify("data", options).ok:
        return False
    if level == "content":
        _require_whole_pictures(job)
    if not job.sealed:
        _require_same_files(job, f"verify --level {level} is satisfied", _is_record)
    return True


def _is_record(name: str) -> bool:
    """Return whether a file is among those that are not compared with a record of their own."""
    return not name.startswith("data/") or "/.vocprep/" in name or name.endswith("lock.json")


def fetch(job: Job) -> bool:
    """Complete the data dir from archives that are there, offline."""
    arguments = ["tiny.toml", "--data-dir", job.draw.choice(["data", "fresh"]), "--offline"]
    arguments += ["--from", "archives"] * (job.draw.random() < 0.8)
    arguments += ["--partial"] * (job.draw.random() < 0.2) + ["--json"] * job.draw.randrange(2)
    done = command(download, *arguments)
    if not job.sealed and Path("fresh").is_dir():
        _require_sources(job, Path("fresh"))
    return done


def fetch_on(job: Job) -> bool:
    """Go on with an unfinished download, from a folder by its URL."""
    mirror = (Path.cwd() / "archives").as_uri()
    options = DownloadOptions(mirrors=(mirror,), offline=True)
    raise_failures(download_files("tiny.toml", "partial", options))
    if not job.sealed:
        _require_sources(job, Path("partial"))
    return True


def _require_sources(job: Job, folder: Path) -> None:
    """Require that all that was unpacked is what the sound archives hold."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        sound = job.world / "data" / name
        is_data = path.is_file() and name.parts[0] in ("VOCdevkit", "trainval", "labels.txt")
        if is_data and (not sound.is_file() or path.read_bytes() != sound.read_bytes()):
            raise BrokenPromise(f"a download without an error, but {name} is another file")


def list_sources(job: Job) -> bool:
    """Print the sources and their state."""
    return command(download, "--list", "--data-dir", "data", *["--json"] * job.draw.randrange(2))


# --- manifests, weights, runs ---------------------------------------------------------------------


def load_manifests(job: Job) -> bool:
    """Read every manifest that was damaged, by the reader of its kind."""
    for name in job.damaged:
        if name == "space.toml":
            load_label_space(name, void_unknown=job.draw.random() < 0.1)
        elif name == "tiny.toml":
            load_source(name)
        elif name in ("mine.toml", "run/options.toml"):
            load_options(name, ["epochs=3"])
        else:
            load_dataset(name)
    return True


def load_weights(job: Job) -> bool:
    """Read the backbone's weights."""
    for name in job.damaged:
        load_fitting_weights(name, Path("data"), DEFAULT_BACKBONE)
    return True


def load_run(job: Job) -> bool:
    """Open a finished run."""
    vocprep.load_run("run")
    return True


def score(job: Job) -> bool:
    """Score a run on a version."""
    flags = ["--data-dir", "data", "--dataset", "mat.toml"] * (job.draw.random() < 0.3)
    flags += ["--json"] * job.draw.randrange(2) + ["--classes"] * job.draw.randrange(2)
    return command(evaluate, "run", "h5", "--device", "cpu", *flags)


def label(job: Job) -> bool:
    """Label pictures with a run."""
    damaged = [name for name in job.damaged if name.startswith("pictures/")]
    pictures = damaged or ["pictures/base.jpg"]
    flags = ["--device", "cpu", *["--json"] * job.draw.randrange(2)]
    done = command(predict, "run", *pictures, "--out", "predictions", *flags)
    _require_whole_pictures(
        job, {path.stem for path in map(Path, job.damaged) if path.suffix != ".png"}
    )
    return done


def train_on(job: Job) -> bool:
    """Go on with an interrupted training."""
    world.train_tiny("h5", "begun")
    return True


def train_new(job: Job) -> bool:
    """Train on a version."""
    world.train_tiny("h5", "trained")
    return True


def sample_again(job: Job) -> bool:
    """Generate the sample that a folder holds already."""
    return command(sample, "sample", "--images", "1")


DATA = ("data", "space.toml")
_DATASETS = ("mat", "palette", "grey", "deep")

VERBS: dict[str, Verb] = {
    "recompute": Verb(functools.partial(check, "h5", "recompute"), ("h5", "mat.toml", *DATA)),
    "diff": Verb(compare, ("h5", "tar")),
    "build on": Verb(build_on, ("unfinished", "mat.toml", *DATA), ("unfinished",)),
    "download": Verb(fetch, ("tiny.toml", "archives", "data"), ("data", "fresh")),
    "download on": Verb(fetch_on, ("tiny.toml", "archives", "partial"), ("partial",)),
    "list": Verb(list_sources, ("data",)),
    "manifests": Verb(load_manifests, ("space.toml",)),
    "weights": Verb(load_weights, ("weights",)),
    "open run": Verb(load_run, ("run",)),
    "evaluate": Verb(score, ("run", "h5", "mat.toml", *DATA)),
    "predict": Verb(label, ("run", "pictures"), ("predictions",)),
    "train on": Verb(train_on, ("begun", "h5", "mine.toml"), ("begun",)),
    "train": Verb(train_new, ("h5", "mine.toml"), ("trained",)),
    "sample": Verb(sample_again, ("sample",)),
}
for _name in world.LAYOUTS:
    _lock = f"{_name}.lock.json"
    VERBS |= {
        f"read {_name}": Verb(functools.partial(read, _name), (_name,)),
        f"verify {_name}": Verb(functools.partial(check, _name, "files"), (_name,)),
        f"content {_name}": Verb(functools.partial(check, _name, "content"), (_name,)),
        f"inspect {_name}": Verb(functools.partial(look, _name), (_name,), ("new.lock.json",)),
        f"lock {_name}": Verb(functools.partial(check_lock, _name), (_name, _lock)),
        f"build locked {_name}": Verb(
            functools.partial(build_locked, _name), (_lock, "mat.toml", *DATA), ("out",)
        ),
        f"build again {_name}": Verb(
            functools.partial(build_again, _name), (_name, "mat.toml", *DATA), (_name,)
        ),
        f"reuse {_name}": Verb(
            functools.partial(reuse, _name), (_name, "mat.toml", *DATA), ("out",)
        ),
    }
for _name in _DATASETS:
    _needs = (f"{_name}.toml", *DATA)
    VERBS |= {
        f"build {_name}": Verb(functools.partial(build_from, _name), _needs, ("out",)),
        f"decode {_name}": Verb(
            functools.partial(decode_from, _name), _needs, ("decoded", "chart.png")
        ),
        f"check {_name}": Verb(functools.partial(check_data, "content", _name), _needs),
    }
VERBS["check files"] = Verb(functools.partial(check_data, "files", "mat"), ("mat.toml", *DATA))
