"""docs/guides/mlflow.md runs as it stands there, and its code finds the runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders.console import Shell, run_page
from builders.guides import shards_voc

from vocprep.heads.training import seeds
from vocprep.shards.reader import ShardDataset

GUIDE = Path(__file__).resolve().parents[2] / "docs/guides/mlflow.md"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of MLflow and its database
]


def test_its_commands_and_its_code_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mlflow", exc_type=ImportError)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(seeds, "usable_cores", lambda: 1)  # no process for each seed
    shards_voc()
    assert run_page(GUIDE.read_text("utf-8"), Shell()) == []
    content_id = ShardDataset.open("shards/voc").index.content_id
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert {row[0] for row in rows} == {"first", "two/seed-0", "two/seed-1"}
    assert {row[1] for row in rows} == {content_id[:12]}
    assert len(list(Path("mlruns").rglob("model.safetensors"))) == 1
    assert Path("runs/third/mlflow.json").is_file()
