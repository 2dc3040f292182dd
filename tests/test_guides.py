"""The pages of docs/: their commands run, and print what is shown below them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from builders import guides
from builders.console import Shell, Shown, blocks, differences, run_page
from builders.s3 import S3
from builders.versions import Built

from vocprep.synthetic.dataset import sample

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES: dict[str, tuple[str, ...]] = {
    "tutorial.md": ("bucket",),
    "guides/audit.md": ("built_voc",),
    "guides/cluster.md": ("data",),
    "guides/distributed.md": (),
    "guides/download.md": ("mirrors",),
    "guides/heads.md": ("few_pictures", "shards_voc"),
    "guides/manifests.md": ("own_pictures",),
    "guides/object-stores.md": ("bucket", "shards_context"),
    "guides/own-backbone.md": ("hub",),
    "guides/own-data.md": (),
    "guides/python.md": (),
    "guides/report.md": ("data", "built_voc"),
    "guides/scores.md": ("shards_context", "two_runs"),
    "guides/versions.md": ("standing_clock",),
}
"""Each page that is run here, in an empty folder, and the fixtures that make what it tells of."""
ELSEWHERE = ("guides/dvc.md", "guides/mlflow.md")
"""Pages whose blocks a test of their own runs."""
MOST_NOT_RUN = 9


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    """In an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    plt.switch_backend("Agg")
    yield Shell()
    plt.close("all")


@pytest.fixture
def bucket(shell: Shell, s3: S3) -> None:
    shell.places["s3://bucket/"] = s3.url("")


@pytest.fixture
def data(shell: Shell, sample_tree: Path) -> None:
    shutil.copytree(sample_tree, "data")


@pytest.fixture
def few_pictures(shell: Shell) -> None:
    sample("data", images=2)


@pytest.fixture
def mirrors(shell: Shell, sample_tree: Path) -> Iterator[None]:
    with guides.mirrors(sample_tree):
        yield


@pytest.fixture
def own_pictures(shell: Shell, sample_tree: Path) -> None:
    guides.own_pictures(sample_tree)


@pytest.fixture
def hub(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    pytest.importorskip("timm")
    with guides.hub("tf_efficientnet_lite0", "timm/tf_efficientnet_lite0.in1k") as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        yield


@pytest.fixture
def built_voc(shell: Shell, crop_hdf5: Built) -> None:
    shutil.copytree(crop_hdf5.path, "shards/voc")


@pytest.fixture
def two_runs(shards_context: None) -> None:
    guides.two_runs()


@pytest.fixture
def shards_context(shell: Shell, crop_hdf5: Built) -> None:
    shutil.copytree(crop_hdf5.path, "shards/context")


@pytest.fixture
def shards_voc(shell: Shell) -> None:
    guides.shards_voc()


@pytest.fixture
def standing_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """SciPy writes the time of day into label files, and their digests are compared."""
    monkeypatch.setattr(time, "asctime", lambda *_: "Thu Jan  1 00:00:00 1970")


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_a_page_runs_and_prints_what_it_shows(
    name: str, shell: Shell, request: pytest.FixtureRequest
) -> None:
    for fixture in PAGES[name]:
        request.getfixturevalue(fixture)
    found = run_page((DOCS / name).read_text(encoding="utf-8"), shell)
    assert not found, "\n\n".join(found)


def test_every_console_block_is_run_or_says_why_not() -> None:
    not_run = []
    for path in sorted(DOCS.parent.glob("*.md")) + sorted(DOCS.rglob("*.md")):
        name = path.relative_to(DOCS).as_posix() if path.is_relative_to(DOCS) else path.name
        console = [each for each in blocks(path.read_text("utf-8")) if each.language == "console"]
        not_run += [f"{name}: {each.reason}" for each in console if each.reason]
        assert name in (*PAGES, *ELSEWHERE) or all(each.reason for each in console), (
            f"{name}: nothing runs its console blocks: add it to PAGES, or say why above the block"
        )
    assert len(not_run) <= MOST_NOT_RUN, "\n".join(not_run)


@pytest.mark.parametrize(
    ("shown", "printed", "difference"),
    [
        (("1 of 2", "loss 1.25   9 s left"), "1 of 2\nloss 13.1  10 s left\n", ""),
        (("a", "…", "z"), "a\nb\nc\nz\n", ""),
        (("a", "…"), "a\nb\n", ""),
        (("3 records",), "4 records\n", "printed: 4 records"),
        (("sky 5.1 %",), "sky 5.2 %\n", "printed: sky 5.2 %"),
        (("a", "…", "z"), "a\nb\n", "printed: (nothing)"),
        (("a",), "a\nerror: b\n", "not shown: error: b"),
        ((), "a\n", ""),
    ],
)
def test_shown_lines_are_compared(shown: tuple[str, ...], printed: str, difference: str) -> None:
    assert differences(Shown("command", shown), printed).endswith(difference)
    assert bool(differences(Shown("command", shown), printed)) == bool(difference)


def test_a_page_is_run_in_order_but_for_what_says_why_not(shell: Shell) -> None:
    page = """
```python
# made.py
number = 3
```

```console
$ cat made.py | tail -1   # a comment
number = 3
$ false; echo $?
1
```

<!-- not run: a reason -->
```console
$ vocprep nonsense
```

```python
__import__("pathlib").Path("more").write_text("text")
```

```console
$ cat more
texts
$ vocprep nonsense
$ exit 5
$ echo $?
5
```
"""
    found = run_page(page, shell)
    assert [difference.splitlines()[-1] for difference in found] == [
        *("printed: text", "ends with 2", "ends with 5")
    ]
