"""Try the wheel in environments of its own: the core, then each extra alone.

    python release/try_dist.py dist build/try-dist

In the core environment the demo runs, and each command whose extra is missing names it in one
sentence. The environment of an extra holds that extra, and sees the core's packages; there the
same command does its work. Takes torch's size on disk once.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
import venv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Place:
    """An environment, and the folder that commands are run in."""

    folder: Path
    work: Path

    @property
    def python(self) -> str:
        """The interpreter of the environment."""
        return str(self.folder / "bin" / "python")

    def run(self, *words: str, code: int = 0) -> str:
        """Run a command and return what it prints; the trial ends at another exit code."""
        command = [self.python, "-m", "vocprep", *words]
        done = subprocess.run(command, cwd=self.work, capture_output=True, text=True, check=False)
        if done.returncode != code:
            sys.exit(f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def install(self, *requirements: str) -> None:
        """Install with pip."""
        subprocess.run([self.python, "-m", "pip", "install", "--quiet", *requirements], check=True)


@dataclass(frozen=True)
class Extra:
    """An extra: the words of a command that needs it, and how its work shows."""

    words: tuple[str, ...]
    works: Callable[[Place, Sequence[str]], object]
    code: int = 2
    """Exit code of the command where the extra is missing."""


def _runs(place: Place, words: Sequence[str]) -> None:
    place.run(*words)


def _no_server(place: Place, words: Sequence[str]) -> None:
    said = place.run(*words, code=3)
    assert "127.0.0.1" in said, said


def _serves(place: Place, words: Sequence[str]) -> None:
    """Start the viewer and fetch its page."""
    command = [place.python, "-m", "vocprep", *words]
    server = subprocess.Popen(command, cwd=place.work, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = next(
            found[0]
            for line in server.stdout
            if (found := re.search(r"http://127\.0\.0\.1:\S+", line))
        )
        with urllib.request.urlopen(url, timeout=30) as answer:
            assert b"vocprep" in answer.read()
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)


_SHARDS = "demo/shards"
_BUILD = ("build-shards", "pascal-context", "--data-dir", "demo/data", "--weights", "random:0")
_FEW = ("--geometry", "native", "--limit", "2")
_TRAIN = ("--preset", "quick", "--epochs", "1", "--out", "mlflow-run")
EXTRAS = {
    "view": Extra(("view", _SHARDS, "--no-browser", "--port", "0"), _serves),
    "cloud": Extra(("inspect", "s3://127.0.0.1/none"), _no_server),
    "timm": Extra((*_BUILD, "--backbone", "timm:test_vit", *_FEW, "--out", "timm"), _runs),
    "export": Extra(("export", _SHARDS, "--to", "parquet", "--out", "parquet"), _runs),
    "mlflow": Extra(("train", _SHARDS, *_TRAIN, "--mlflow", "sqlite:///mlflow.db"), _runs),
    "ray": Extra((*_BUILD, "--engine", "ray", *_FEW, "--out", "ray"), _runs),
}
"""``tensorboard`` is missing here: without it, trainings write no event files and need none."""


def main() -> None:
    """Try all of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("dist", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--extras", nargs="*", default=list(EXTRAS), choices=list(EXTRAS))
    arguments = parser.parse_args()
    (wheel,) = arguments.dist.resolve().glob("*.whl")
    folder = arguments.folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "work").mkdir(parents=True)
    os.environ |= {  # where nothing listens
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ALLOW_HTTP": "true",
        "AWS_SKIP_SIGNATURE": "true",
    }
    core = Place(folder / "core", folder / "work")
    venv.create(core.folder, with_pip=True)
    core.install("--upgrade", "pip")
    core.install(str(wheel))
    core.run("demo", "demo")
    print("core: the demo runs")
    for name in arguments.extras:
        extra = EXTRAS[name]
        said = core.run(*extra.words, code=extra.code)
        assert f"vocprep[{name}]" in said, said
        assert "Traceback" not in said, said
        _try_extra(name, wheel, core)
        print(f"{name}: works where it is installed, and is named where it is not")


def _try_extra(name: str, wheel: Path, core: Place) -> None:
    own = Place(core.folder.with_name(name), core.work)
    venv.create(own.folder, with_pip=True)
    (packages,) = core.folder.glob("lib/python3.*/site-packages")
    (site,) = own.folder.glob("lib/python3.*/site-packages")
    (site / "core.pth").write_text(f"{packages}\n")
    own.install("--force-reinstall", "--no-deps", str(wheel))
    own.install(f"{wheel}[{name}]")
    EXTRAS[name].works(own, EXTRAS[name].words)


if __name__ == "__main__":
    main()
