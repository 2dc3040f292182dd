"""The commands of docs/guides/own-data.md parse, and init prints what is shown there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from vocprep.cli.main import main

Run = Callable[..., Result]
GUIDE = (Path(__file__).resolve().parents[2] / "docs/guides/own-data.md").read_text("utf-8")


def shown() -> list[tuple[list[str], str]]:
    """Return the words of each command of the guide and what is shown below it."""
    guide = GUIDE.replace("\\\n", "")  # commands that go on in the next line
    blocks = re.findall(r"```console\n(.*?)```", guide, flags=re.DOTALL)
    parts = [part for block in blocks for part in re.split(r"^\$ ", block, flags=re.MULTILINE)]
    pairs = [part.partition("\n") for part in parts if part]
    return [(shlex.split(command)[1:], output.strip()) for command, _, output in pairs]


def test_its_commands_parse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = [words[0] for words, _ in shown()]
    assert {*found} == {*("sample", "init", "build-shards", "train", "predict", "evaluate", "view")}
    for (verb, *words), _ in shown():
        with main.commands[verb].make_context(verb, words):
            pass


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["data_dataset_voc", "CamVid", "kitchen"])
def test_init_prints_what_is_shown(
    folder: str, tmp_path: Path, vocprep: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    steps = [(words, output) for words, output in shown() if words[1] == folder]
    assert [words[0] for words, _ in steps][:2] == ["sample", "init"]
    for words, output in steps:
        assert vocprep(*words).output.strip() == output
