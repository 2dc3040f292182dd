"""``vocprep init`` as a user meets it: what is printed, exit codes, what a build makes of it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

from builders.own_trees import camvid, plain
from click.testing import Result

Run = Callable[..., Result]


def test_the_table_says_what_there_is_and_the_last_line_what_comes_next(
    tmp_path: Path, vocprep: Run
) -> None:
    root = plain(tmp_path / "my data", ["a", "b", "c"])
    (root / "masks" / "c.png").unlink()
    result = vocprep("init", root, "--split", "50/50", "--dry-run")
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["layout", "folders", "of", "pictures", "and", "masks"] in lines
    assert ["pictures", "3", ".jpg"] in lines
    assert ["masks", "2,", "2", "with", "a", "picture"] in lines
    assert ["looked", "at", "values", "of", "2", "of", "2", "masks"] in lines
    assert ["splits", "train", "1,", "val", "1"] in lines
    assert ["0", "0", "class", "0", "35.00", "%", "2"] in lines
    assert "note: 1 picture without a mask, left out: images/c.jpg" in result.stdout
    assert not (root / "dataset.toml").exists()
    command = result.stdout.splitlines()[-1].removeprefix("next: ")
    assert shlex.split(command)[:3] == ["vocprep", "build-shards", str(root / "dataset.toml")]


def test_json_holds_the_same_and_errors_are_one_sentence(tmp_path: Path, vocprep: Run) -> None:
    root = camvid(tmp_path / "CamVid")
    result = json.loads(vocprep("init", root, "--json").stdout)
    assert (result["layout"], result["void"]) == ("folders per split", None)
    assert len(result["questions"]) == 1
    for words, code, message in (
        ([tmp_path / "nowhere"], 3, "expected a folder of pictures and masks, found nothing"),
        ([root, "--split", "80"], 2, "expected shares of train and val"),
        ([root, "--split", "80/10"], 2, "'80/10' sums to 90: expected shares that sum to 100"),
        ([root, "--split", "80/20"], 2, "each split has folders of its own here"),
        ([root, "--void", "black"], 2, "expected an id, as 255, or none"),
        ([root, "--name", "a b"], 2, "name 'a b': expected"),
    ):
        failed = vocprep("init", *words)
        assert (failed.exit_code, failed.stderr.count("\n")) == (code, 1)
        assert message in failed.stderr


def test_a_build_asks_what_init_could_not_know(tmp_path: Path, vocprep: Run) -> None:
    root = camvid(tmp_path / "CamVid")
    result = vocprep("init", root)
    assert "question: " in result.stdout
    words = ["--data-dir", root, "--out", tmp_path / "shards", "--weights", "random:0"]
    built = vocprep("build-shards", root / "dataset.toml", *words)
    assert built.exit_code == 3
    assert "classes.toml: line" in built.stderr
    assert "void is not answered: which id marks pixels of no class (void)?" in built.stderr
    assert not (tmp_path / "shards").exists()
