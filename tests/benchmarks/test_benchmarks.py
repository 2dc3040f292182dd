"""Every benchmark runs at a tiny size, prints its tables and writes the same as JSON."""

from __future__ import annotations

import getpass
import importlib
import json
import os
import platform
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from builders.processes import Ended, run_script
from builders.versions import Built

from vocprep.recipe import Precision
from vocprep.shards.reader import ShardDataset

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
TINY = {
    "audit": ["--images", "40", "--share", "0.2", "--seeds", "1"],
    "build": ["--images", "6", "--start-up", "2", "--no-compile"],
    "compare": ["--images", "2", "--noticing", "2", "--ways", "abc"],
    "decode": ["--maps", "4", "--repeats", "1"],
    "download": ["--mebibytes", "1", "--repeats", "1"],
    "exact": [
        *("--images", "4", "--start-up", "2", "--compared", "2", "--windows", "32"),
        "--no-compile",
    ],
    "feed": [
        *("--images", "4", "--labels", "mat", "--geometries", "crop", "--records", "100"),
        *("--processes", "1"),
    ],
    "quality": ["--images", "4", "--passes", "2", "--seeds", "2", "--rows", "cells", "linear"],
    "read": ["--records", "600", "--repeats", "1"],
    "scale": ["--most", "1000"],
    "scaling": ["--images", "8"],
    "segment": ["--patches", "3", "--repeats", "1"],
    "startup": ["--images", "4", "--repeats", "1", "--rows", "pass", "vocprep --help"],
    "storage": ["--records", "600", "--repeats", "1"],
    "sweep": [
        *("--images", "4", "--epochs", "1", "--repeats", "1", "--values", "0", "1"),
        "--no-commands",
    ],
    "targets": ["--maps", "3", "--repeats", "1"],
    "train": [
        *("--images", "4", "--batch-size", "2", "--repeats", "1", "--encoder", "none"),
        *("--presets", "cells"),
    ],
    "view": ["--pictures", "24", "--requests", "20", "--starts", "1"],
}


def one_build(script: dict[str, Any]) -> tuple[str, Callable[..., Any]]:
    """Of the builds of scaling.py, the first is a build."""
    build, made = script["build"], []

    def build_once(pictures: Any, images: int, out: Path) -> Any:
        made.append(build(pictures, images, out) if not made else None)
        return made[-1] or script["Run"](images, seconds=1.0 + images / 10, peak=10**9)

    return "build", build_once


def one_job_apart(script: dict[str, Any]) -> tuple[str, Callable[..., Any]]:
    """Of the jobs of scale.py, the opening has a process of its own."""
    jobs, apart = importlib.import_module("_scale_jobs"), script["run"]

    def run_job(job: str, folder: Path, samples: int) -> Any:
        if job == "open":
            return apart(job, folder, samples)
        if job == "sources":
            jobs.write_sources(folder, samples)
        else:
            jobs.JOBS[job](folder)
        return script["Run"](job, samples, seconds=1.0, peak=2 * 10**9, before=10**9)

    return "run", run_job


IN_MANY_PROCESSES = {"scaling": one_build, "scale": one_job_apart}
MACHINE = {"cpu", "cores", "threads", "instruction_set", "memory_gb", "gpu", "load"}
A_PATH = re.compile(r"(^|[\s\"'=(:])(/|~)\w")


HERE = {"PYTHONPATH": str(FOLDER.parent), "VOCPREP_SHARED_DATA": str(FOLDER / "no-such-folder")}
"""Generated pictures, and this tree for the processes that a script starts."""


def run(name: str, words: list[str], folder: Path) -> Ended:
    """Run a script on generated pictures."""
    return run_script(FOLDER / f"{name}.py", words, folder, HERE)


def run_beside(name: str, words: list[str], modules: Path) -> subprocess.CompletedProcess[str]:
    """Run a script in a Python of its own, which looks for modules in a folder first."""
    paths = os.pathsep.join([str(modules), HERE["PYTHONPATH"]])
    return subprocess.run(
        [sys.executable, str(FOLDER / f"{name}.py"), *words],
        env={**os.environ, **HERE, "PYTHONPATH": paths},
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


def assert_reports(name: str, path: Path, output: str) -> None:
    """A script has printed its tables, and written them to a file."""
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

    printed = output.splitlines()
    for table in report["tables"]:
        assert table["rows"]
        for row in table["rows"]:
            name_of_row, *numbers = row.values()
            assert any(line.startswith(name_of_row) for line in printed)
            assert any(isinstance(number, float) for number in numbers)  # at this size below 0 too
        cells = [cell for row in table["rows"] for cell in row.values()]
        assert any(isinstance(cell, float) and cell > 0 for cell in cells)
    assert [note for note in report["notes"] if note not in printed] == []
    assert any("GPU rows: not measured" in note for note in report["notes"]) == (name == "build")

    for text in strings(report):  # whose machine it was is nobody's business
        assert not A_PATH.search(text)
        assert platform.node() not in text.split()
        assert getpass.getuser() not in text.split()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(TINY.keys() - IN_MANY_PROCESSES))
def test_a_script_prints_its_tables_and_writes_them(name: str, tmp_path: Path) -> None:
    path = tmp_path / "results" / "report.json"
    done = run(name, [*TINY[name], "--json", str(path)], tmp_path)
    assert done.returncode == 0, done.stderr
    assert_reports(name, path, done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("name", IN_MANY_PROCESSES)
def test_a_script_of_many_processes_prints_its_tables_and_writes_them(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of its jobs has a process of its own; the others are done here, or made up."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setenv("PYTHONPATH", HERE["PYTHONPATH"])
    monkeypatch.setenv("VOCPREP_SHARED_DATA", HERE["VOCPREP_SHARED_DATA"])
    script = runpy.run_path(str(FOLDER / f"{name}.py"))
    apart, result = IN_MANY_PROCESSES[name](script)
    monkeypatch.setitem(script["main"].__globals__, apart, result)
    path = tmp_path / "report.json"
    monkeypatch.setattr(sys, "argv", [name, *TINY[name], "--json", str(path)])
    script["main"]()
    assert_reports(name, path, capsys.readouterr().out)


@pytest.mark.slow
def test_reading_goes_on_without_the_other_loaders(tmp_path: Path) -> None:
    for module in ("webdataset", "litdata", "streaming"):
        (tmp_path / f"{module}.py").write_text("raise ImportError('hidden from this test')\n")
    path = tmp_path / "report.json"
    done = run_beside("read", [*TINY["read"], "--json", str(path)], tmp_path)
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
def test_a_gpu_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    done = run("build", ["--device", "cuda"], tmp_path)
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


def test_a_training_is_done_once_for_rows_that_come_to_the_same_and_anew_for_others(
    crop_hdf5: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    script = runpy.run_path(str(FOLDER / "quality.py"))
    variants, variant = script["VARIANTS"], type(script["VARIANTS"]["default"])
    monkeypatch.setitem(variants, "one", variant("one", preset="cells", settings=("lr=1e-3",)))
    monkeypatch.setitem(variants, "same", variant("same", "cells", "wide", ("lr=0.001",)))
    monkeypatch.setitem(variants, "other", variant("other", "cells", settings=("lr=2e-3",)))
    monkeypatch.setitem(variants, "batch", replace(variants["one"], batch_size=3))
    dataset = ShardDataset.open(crop_hdf5.path)
    monkeypatch.setitem(script["trainings"].__globals__, "build", lambda bench, name: dataset)
    bench = script["Bench"](tmp_path, images=None, passes=2, batch_size=2, seeds=2, jobs=1)

    names = ["one", "same", "other", "batch"]
    folders = {
        name: [training.run_dir for training in row]
        for name, row in script["trainings"](bench, names).items()
    }
    assert folders["one"] == folders["same"]
    assert len({folder for row in folders.values() for folder in row}) == 6
    more = script["trainings"](replace(bench, passes=4), names)
    assert not {each.run_dir for each in more["one"]} & set(folders["one"])
    assert {each.options.batch_size for each in more["batch"]} == {3}


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ({}, {"name": "cells: mask IoU", "measured": 45.0}),
        ({"above": "seed"}, {"name": "cells: mask IoU above seed", "measured": 6.5}),
        ({"times": "linear"}, {"name": "cells: mask IoU, times linear", "measured": 1.5}),
        ({"above": "wide"}, None),
    ],
)
def test_what_is_asked_of_rows_stands_beside_what_was_measured(
    asked: dict[str, str], line: dict[str, Any] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    script = runpy.run_path(str(FOLDER / "quality.py"))
    rows = {"cells": {"mask_iou": 45.0}, "seed": {"mask_iou": 38.5}, "linear": {"mask_iou": 30.0}}
    found = script["compare"](script["Asked"]("cells", "mask_iou", 1.0, **asked), rows)
    assert found == (line and {"at_least": 1.0, **line})


def test_a_spread_is_printed_behind_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    script = runpy.run_path(str(FOLDER / "_report.py"))
    columns = (script["Column"]("name", ""), script["Column"]("iou", "IoU", ".1f", spread=True))
    one = {"name": "two seeds", "iou": 43.25, "iou_lowest": 43.04, "iou_highest": 43.46}
    table = script["Table"](
        "%", columns, [one, {"name": "oracle", "iou": 57.9}, {"name": "chance"}]
    )
    assert [line.split(maxsplit=1)[-1] for line in table.text().splitlines()] == [
        "IoU",
        "seeds  43.2 (43.0-43.5)",
        "57.9",
        "-",
    ]
