"""Every benchmark runs at a tiny size, prints its tables and writes the same as JSON."""

from __future__ import annotations

import getpass
import json
import os
import platform
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from vocprep.recipe import Precision

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
TINY = {
    "audit": ["--images", "40", "--share", "0.2", "--seeds", "1"],
    "build": ["--images", "6", "--start-up", "2", "--no-compile"],
    "decode": ["--maps", "4", "--repeats", "1"],
    "download": ["--mebibytes", "1", "--repeats", "1"],
    "exact": [
        *("--images", "4", "--start-up", "2", "--compared", "2", "--windows", "32"),
        "--no-compile",
    ],
    "quality": [
        *("--images", "8", "--passes", "2", "--seeds", "1"),
        *("--rows", "default", "seed", "linear"),
    ],
    "read": ["--records", "600", "--repeats", "1"],
    "scale": ["--most", "1000"],
    "scaling": ["--images", "8"],
    "segment": ["--patches", "3", "--repeats", "1"],
    "storage": ["--records", "600", "--repeats", "1"],
    "targets": ["--maps", "3", "--repeats", "1"],
    "train": ["--images", "4", "--batch-size", "2", "--repeats", "1", "--encoder", "none"],
    "view": ["--pictures", "24", "--requests", "20", "--starts", "1"],
}
MACHINE = {"cpu", "cores", "threads", "instruction_set", "memory_gb", "gpu", "load"}
A_PATH = re.compile(r"(^|[\s\"'=(:])(/|~)\w")


def run(name: str, words: list[str], *folders: Path) -> subprocess.CompletedProcess[str]:
    """Run a script on generated pictures, with folders that Python looks into first."""
    paths = [*map(str, folders), str(FOLDER.parent)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "VOCPREP_SHARED_DATA": str(FOLDER / "no-such-folder"),
    }
    return subprocess.run(
        [sys.executable, str(FOLDER / f"{name}.py"), *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def report_of(path: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return report


def strings(value: Any) -> list[str]:
    """All texts of a JSON value, keys too."""
    if isinstance(value, dict):
        return [text for pair in value.items() for part in pair for text in strings(part)]
    if isinstance(value, list):
        return [text for item in value for text in strings(item)]
    return [value] if isinstance(value, str) else []


def test_every_script_is_tried_here() -> None:
    assert sorted(TINY) == sorted(path.stem for path in FOLDER.glob("[a-z]*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_a_script_prints_its_tables_and_writes_them(name: str, tmp_path: Path) -> None:
    path = tmp_path / "results" / "report.json"
    done = run(name, [*TINY[name], "--json", str(path)])
    assert done.returncode == 0, done.stderr
    report = report_of(path)

    assert list(report) == ["benchmark", "machine", "versions", "samples", "tables", "notes"]
    assert report["benchmark"] == name
    assert set(report["machine"]) == MACHINE
    assert report["machine"]["cores"] >= 1
    assert report["versions"]["python"] == platform.python_version()
    assert report["versions"]["torch"] == torch.__version__.split("+")[0]
    counts = [count for count in report["samples"].values() if isinstance(count, int)]
    assert counts
    assert min(counts) > 0

    printed = done.stdout.splitlines()
    for table in report["tables"]:
        assert table["rows"]
        for row in table["rows"]:
            name_of_row, *numbers = row.values()
            assert any(line.startswith(name_of_row) for line in printed)
            assert any(isinstance(number, float) and number > 0 for number in numbers)
    assert [note for note in report["notes"] if note not in printed] == []
    assert any("GPU rows: not measured" in note for note in report["notes"]) == (name == "build")

    for text in strings(report):  # whose machine it was is nobody's business
        assert not A_PATH.search(text)
        assert platform.node() not in text.split()
        assert getpass.getuser() not in text.split()


@pytest.mark.slow
def test_reading_goes_on_without_the_other_loaders(tmp_path: Path) -> None:
    for module in ("webdataset", "litdata", "streaming"):
        (tmp_path / f"{module}.py").write_text("raise ImportError('hidden from this test')\n")
    path = tmp_path / "report.json"
    done = run("read", [*TINY["read"], "--json", str(path)], tmp_path)
    assert done.returncode == 0, done.stderr
    report = report_of(path)
    for peer in ("webdataset", "litdata", "mosaicml-streaming"):
        assert any(
            note.startswith(peer) and "left out, not installed" in note for note in report["notes"]
        )
    names = {row["name"] for row in report["tables"][0]["rows"]}
    assert len(names) == 6
    assert all(name.startswith(("vocprep ", "numpy.memmap")) for name in names)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to measure")
def test_a_gpu_that_is_not_there_is_a_usage_error() -> None:
    done = run("build", ["--device", "cuda"])
    assert done.returncode == 2
    assert "found no CUDA device" in done.stderr


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_building_offers_the_precisions_that_there_are(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    find_ways = runpy.run_path(str(FOLDER / "build.py"))["find_ways"]
    ways = find_ways(torch.device(device), compile_too=True)
    assert {way.precision for way in ways} <= set(get_args(Precision))
    assert {"fp32", "bf16"} <= {way.precision for way in ways}
    assert len({way.title for way in ways}) == len(ways)
    plain = find_ways(torch.device(device), compile_too=False)
    assert plain
    assert not any(way.compiled for way in plain)
