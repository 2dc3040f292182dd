"""docs/tutorial.md: its Python runs, and its commands print what is shown below them."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from builders.console import Shown, differences, shown_commands
from builders.s3 import S3
from builders.verbs import invoke

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "tutorial.md").read_text("utf-8")


def printed_by(command: str, s3: S3) -> str:
    """Run a command of the page, whose bucket is a folder of the tests' server."""
    words = shlex.split(command.replace("s3://bucket/", s3.url("")))
    if words[0] == "cp":
        shutil.copy(*words[1:])
        return ""
    assert words[0] == "vocprep"
    return invoke(*words[1:]).output.replace(s3.url(""), "s3://bucket/")


@pytest.mark.slow
def test_all_of_it_runs_and_prints_what_is_shown(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plt.switch_backend("Agg")
    names: dict[str, object] = {}
    for code in re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        exec(compile(code, "tutorial.md", "exec"), names)
    plt.close("all")
    found = [differences(each, printed_by(each.command, s3)) for each in shown_commands(PAGE)]
    assert [difference for difference in found if difference] == []


@pytest.mark.parametrize(
    ("shown", "printed", "difference"),
    [
        (("1 of 2", "loss 1.25   9 s left"), "1 of 2\nloss 13.1  10 s left\n", ""),
        (("a", "…", "z"), "a\nb\nc\nz\n", ""),
        (("a", "…"), "a\nb\n", ""),
        (("3 records",), "4 records\n", "printed: 4 records"),
        (("a", "…", "z"), "a\nb\n", "printed: (nothing)"),
        (("a",), "a\nerror: b\n", "not shown: error: b"),
        ((), "", ""),
    ],
)
def test_shown_lines_are_compared(shown: tuple[str, ...], printed: str, difference: str) -> None:
    assert differences(Shown("command", shown), printed).endswith(difference)
    assert bool(differences(Shown("command", shown), printed)) == bool(difference)
