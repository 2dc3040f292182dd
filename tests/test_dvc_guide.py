"""docs/guides/dvc.md: its stages run under DVC, and a second run of them does nothing."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from builders.console import Shell, run_page

GUIDE = Path(__file__).resolve().parents[1] / "docs/guides/dvc.md"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC, this vocprep, and a git that knows who commits; skips where one is not installed."""
    own = Path(sys.executable).parent
    search = f"{own}{os.pathsep}{os.environ['PATH']}"
    for name in ("dvc", "git"):
        if shutil.which(name, path=search) is None:
            pytest.skip(f"{name} is not installed")
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "vocprep").write_text(f'#!/bin/sh\nexec {sys.executable} -m vocprep "$@"\n')
    (folder / "vocprep").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{search}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "true")
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "tests")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "tests@localhost")


@pytest.mark.slow
def test_its_stages_run_and_are_up_to_date_afterwards(
    programs: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    found = run_page(GUIDE.read_text("utf-8"), Shell(timeout=280))
    assert not found, "\n\n".join(found)
    assert json.loads(Path("metrics.json").read_text())["epoch"] == 4
