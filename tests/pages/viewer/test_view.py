"""The verb: where it listens, how it begins and ends, and what it says where it cannot."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from builders.heads import make_two_splits
from click.testing import CliRunner, Result

import vocprep
from vocprep.cli.main import main
from vocprep.errors import UsageError


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_two_splits(tmp_path_factory.mktemp("view") / "shards").path
    assert isinstance(path, Path)
    return path


def command(*words: object) -> Result:
    return CliRunner().invoke(main, ["view", *map(str, words)])


@pytest.mark.slow
def test_it_opens_the_browser_and_ends_with_ctrl_c(shards: Path, tmp_path: Path) -> None:
    opened = tmp_path / "opened"
    program = tmp_path / "browser"
    os.mkfifo(opened)
    program.write_text(f'#!/bin/sh\nprintf %s "$1" > {opened}\n')
    program.chmod(0o755)
    child = subprocess.Popen(
        [sys.executable, "-m", "vocprep", "view", str(shards)],
        env={**os.environ, "DISPLAY": ":1", "BROWSER": str(program)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdout is not None
        url = child.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(url, timeout=60) as page:
            assert page.status == 200
        assert opened.read_text() == url
        child.send_signal(signal.SIGINT)
        out, errors = child.communicate(timeout=60)
    assert (child.returncode, out, errors) == (0, "", "Ctrl-C ends the viewer\n")


def test_a_port_that_is_taken_is_told(shards: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = command(shards, "--port", port)
        assert done.exit_code == 2
        assert done.stderr == (
            f"error: port {port}: cannot be listened at on 127.0.0.1: Address already in use; "
            "give another --port, or leave it out for a free one\n"
        )
    with pytest.raises(UsageError, match="port 65536: expected at most 65535"):
        vocprep.ViewOptions(port=65_536)


@pytest.mark.parametrize("module", ["starlette", "uvicorn"])
def test_without_the_extra_it_says_what_to_install(
    shards: Path, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    done = command(shards)
    assert done.exit_code == 2
    assert done.stderr == (
        "error: the viewer needs the extra view: run pip install 'vocprep[view]'\n"
    )


def test_what_cannot_be_shown_is_refused(shards: Path, tmp_path: Path) -> None:
    for words, sentence in {
        (tmp_path,): "expected a run or a dataset version, found an empty folder",
        (tmp_path / "none",): "expected a run or a dataset version, found nothing",
        (shards, "--dataset", "voc2012"): "give --data-dir too",
        (shards, "--data-dir", tmp_path, "--dataset", "voc2012"): "expected the images that the",
        (shards, shards, shards): "expected one or two dataset versions, found 3",
        (shards, "--device", "tpu"): "device 'tpu': expected auto, cpu, cuda or cuda:N",
    }.items():
        done = command(*words)
        assert sentence in done.stderr, done.stderr
        assert done.stderr.count("\n") == 1
        assert done.exit_code in (2, 3)
