"""Folders that are written as a whole: at every failing call, and after a kill at any of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from vocprep.errors import UsageError
from vocprep.files.replacing import Replacement

OLD = {"index": "old", "a": "old a", "b": "old b", "only old": "x"}
NEW = {"index": "new", "a": "new a", "b": "new b", "only new": "y"}
FOREIGN = {".lock": ""}
MOVING = ("mkdir", "rename", "iterdir", "rmdir")


def write(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


def read(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def make(folder: Path, old: dict[str, str]) -> Replacement:
    """A folder with old files, and new ones in its staging folder."""
    write(folder, {**old, **FOREIGN})
    write(folder / ".tmp-new", NEW)
    return Replacement(
        folder=folder,
        staged=folder / ".tmp-new",
        marker="index",
        is_own=(OLD | NEW).__contains__,
    )


class Killed(BaseException):
    """Ends everything: nothing after it is undone."""


def fail_nth(monkeypatch: pytest.MonkeyPatch, nth: int, error: BaseException) -> list[str]:
    """Let the nth call that moves or lists files fail; return the calls so far."""
    calls: list[str] = []

    def failing(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **words: Any) -> Any:
            calls.append(name)
            if len(calls) == nth:
                raise error
            return original(*arguments, **words)

        return call

    for name in MOVING:
        monkeypatch.setattr(Path, name, failing(name, getattr(Path, name)))
    monkeypatch.setattr(os, "fsync", failing("fsync", os.fsync))
    return calls


@pytest.mark.parametrize("old", [OLD, {}], ids=["replaced", "first"])
def test_all_new_files_take_the_place_of_all_old_ones(old: dict[str, str], tmp_path: Path) -> None:
    make(tmp_path / "out", old).commit(NEW)
    assert read(tmp_path / "out") == NEW | FOREIGN
    assert {path.name for path in (tmp_path / "out").iterdir() if path.is_dir()} == {".tmp-new"}


@pytest.mark.parametrize("old", [OLD, {}], ids=["replaced", "first"])
def test_folder_is_old_or_new_whichever_call_fails(
    old: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = set()
    for nth in range(1, 100):
        out = tmp_path / f"out{nth}"
        exchange = make(out, old)
        with monkeypatch.context() as patched:
            calls = fail_nth(patched, nth, OSError(5, "Input/output error"))
            with suppress(OSError):
                exchange.commit(NEW)
        found = read(out)
        assert found in (old | FOREIGN, NEW | FOREIGN)
        if found == old | FOREIGN:
            assert read(exchange.staged) == NEW  # nothing has to be made again
            exchange.commit(NEW)
            assert read(out) == NEW | FOREIGN
        ends.add(found.get("index", "none"))
        if len(calls) < nth:
            break
    assert nth > 8
    assert ends == {old.get("index", "none"), "new"}


@pytest.mark.parametrize("old", [OLD, {}], ids=["replaced", "first"])
@pytest.mark.parametrize("again", [0, 1, 2, 3, 5])
def test_killed_exchange_is_undone_or_finished_by_the_next_one(
    old: dict[str, str], again: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the next one is killed too, after so many calls."""
    for nth in range(1, 100):
        out = tmp_path / f"out{nth}"
        exchange = make(out, old)
        with monkeypatch.context() as patched:
            patched.setattr(Replacement, "restore", lambda _: None)
            calls = fail_nth(patched, nth, Killed())
            with suppress(Killed):
                exchange.commit(NEW)
        found = read(out)
        if found.get("index") is not None:  # only a whole folder is valid
            assert found in (OLD | FOREIGN, NEW | FOREIGN)
        if again:
            with monkeypatch.context() as patched:
                fail_nth(patched, again, Killed())
                with suppress(Killed):
                    exchange.restore()
        exchange.restore()
        assert read(out) in (old | FOREIGN, NEW | FOREIGN)
        assert {path.name for path in out.iterdir() if path.is_dir()} <= {".tmp-new"}
        if read(out) == old | FOREIGN:
            assert read(exchange.staged) == NEW
        if len(calls) < nth:
            break
    assert nth > 8


def test_name_that_somebody_takes_meanwhile_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = make(tmp_path / "out", OLD)
    rename = Path.rename

    def taking(self: Path, target: Path) -> Path:
        result = rename(self, target)
        if target.name == ".tmp-replaced":
            (tmp_path / "out" / "only new").write_text("mine")
        return result

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", taking)
        with pytest.raises(FileExistsError):
            exchange.commit(NEW)
    assert read(tmp_path / "out") == {**OLD, **FOREIGN, "only new": "mine"}


@pytest.mark.parametrize("name", [".tmp-replacing", ".tmp-replaced", ".tmp-new"])
def test_unfinished_work_behind_a_link_is_refused(name: str, tmp_path: Path) -> None:
    exchange = make(tmp_path / "out", OLD)
    write(tmp_path / "mine", {"index": "mine"})
    (exchange.staged).rename(tmp_path / "elsewhere")
    (tmp_path / "out" / name).symlink_to(tmp_path / "mine")
    with pytest.raises(UsageError, match=r"found a link to .*mine; delete the link"):
        exchange.restore()
    assert read(tmp_path / "mine") == {"index": "mine"}
