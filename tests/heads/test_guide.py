"""The encoder of docs/guides/heads.md keeps the contract of encoders."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.heads import make_batch, make_dataset, random_records

pytestmark = pytest.mark.slow

GUIDE = (Path(__file__).resolve().parents[2] / "docs/guides/heads.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def code() -> dict[str, Any]:
    text = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL)[0]
    assert len(text.splitlines()) <= 40
    names: dict[str, Any] = {}
    exec(compile(text, "docs/guides/heads.md", "exec"), names)
    return names


def test_its_code_trains_an_encoder_on_shards(
    code: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    records = random_records("train", [(1, 2), (2, 1), (1, 1)])
    dataset = make_dataset(tmp_path / "shards", {"train": records})
    torch.manual_seed(0)
    heads = code["train"](dataset.path, epochs=12)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12
    first, last = (float(line.split()[3].rstrip(",")) for line in (lines[0], lines[-1]))
    assert last < 0.8 * first
    assert isinstance(heads.te, code["MeanMixer"])


def test_its_encoder_keeps_the_contract_on_padding(code: dict[str, Any]):
    mixer = code["MeanMixer"]()
    batch = make_batch(random_records("train", [(1, 2), (2, 2)]), patches=7)
    alone = mixer(batch.embeddings[:, :4], batch.padding[:, :4], batch.grids)
    filled = batch.embeddings.masked_fill(batch.padding.unsqueeze(-1), 1e3)
    both = mixer(filled, batch.padding, batch.grids)
    real = ~batch.padding[:, :4]
    torch.testing.assert_close(both[:, :4][real], alone[real], atol=1e-5, rtol=1e-4)
