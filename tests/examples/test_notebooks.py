"""The notebooks of examples/ run, print what they hold, and show as many pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from builders.console import Shown, differences
from nbclient import NotebookClient

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


def outputs(cell: nbformat.NotebookNode) -> Iterator[nbformat.NotebookNode]:
    yield from cell.get("outputs", [])


def printed(cell: nbformat.NotebookNode) -> str:
    return "".join(
        each["text"] if "text" in each else each["data"]["text/plain"]
        for each in outputs(cell)
        if "text" in each or "image/png" not in each["data"]
    )


def pictures(cell: nbformat.NotebookNode) -> int:
    return sum("image/png" in each.get("data", {}) for each in outputs(cell))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_prints_and_shows_what_it_holds(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES.parent))
    held, run = nbformat.read(path, 4), nbformat.read(path, 4)
    NotebookClient(run, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
    for before, after in zip(held.cells, run.cells, strict=True):
        shown = Shown(before["source"], tuple(printed(before).rstrip("\n").split("\n")))
        assert differences(shown, printed(after)) == ""
        assert pictures(after) == pictures(before)


def test_all_four_are_there_small_and_without_a_warning() -> None:
    assert len(NOTEBOOKS) == 4
    for path in NOTEBOOKS:
        assert path.stat().st_size < 300_000
        cells = nbformat.read(path, 4).cells
        assert [
            each for cell in cells for each in outputs(cell) if each.get("name") == "stderr"
        ] == []
        assert sum(map(pictures, cells)) > 0
