"""Verbs of data dirs: build from, decode, check, download."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import vocprep
from fuzz import world
from fuzz.verbs.job import BrokenPromise, Job, command, require_same_files, require_whole
from vocprep.cli.build import build_shards
from vocprep.cli.download import download
from vocprep.cli.sources import decode, sample
from vocprep.cli.verify import verify as verify_command
from vocprep.downloading.download import DownloadOptions
from vocprep.downloading.download import download as download_files
from vocprep.downloading.outcomes import raise_failures
from vocprep.options import MaxFailures, VerifyOptions

ANY_FAILURES = replace(world.ENGINE, max_failures=MaxFailures(percent=100.0))


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
    quarantined = {bad.id for bad in vocprep.open("out").quarantined}
    require_whole(job, (".png", ".jpg"), quarantined | {world.DAMAGED})
    return True


def decode_from(dataset: str, job: Job) -> bool:
    """Decode the label maps of a data dir."""
    flags = ["--json"] * job.draw.randrange(2)
    flags += ["--chart", "chart.png"] * (job.draw.random() < 0.1)
    arguments = [f"{dataset}.toml", "--data-dir", "data", "--out", "decoded", "--workers", "1"]
    done = command(decode, *arguments, *flags)
    require_whole(job, [".png"], [world.DAMAGED])
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
        require_whole(job, (".png", ".jpg"))
    if not job.sealed:
        require_same_files(job, f"verify --level {level} is satisfied", _is_record)
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


def sample_again(job: Job) -> bool:
    """Generate the sample that a folder holds already."""
    return command(sample, "sample", "--images", "1")
