"""The code and the commands of docs/guides/heads.md work as they stand there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.heads import make_batch, make_dataset, random_records

from vocprep.cli.main import main
from vocprep.heads.runs.options import DEFAULT_PRESET
from vocprep.heads.runs.presets import load_options, options_toml

pytestmark = pytest.mark.slow

GUIDE = (Path(__file__).resolve().parents[2] / "docs/guides/heads.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, flags=re.DOTALL)


@pytest.fixture(scope="module")
def code() -> dict[str, Any]:
    text = blocks("python")[0]
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


def test_its_code_scores_what_it_trained(
    code: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    splits = {name: random_records(name, [(1, 2), (2, 1)]) for name in ("train", "val")}
    make_dataset(tmp_path / "shards" / "voc", splits)
    monkeypatch.chdir(tmp_path)
    (_, text) = blocks("python")
    exec(compile(text, "docs/guides/heads.md", "exec"), dict(code))
    last = capsys.readouterr().out.splitlines()[-1]
    assert 0 < float(last.removeprefix("mIoU ")) <= 100


def test_its_encoder_keeps_the_contract_on_padding(code: dict[str, Any]):
    mixer = code["MeanMixer"]()
    batch = make_batch(random_records("train", [(1, 2), (2, 2)]), patches=7)
    alone = mixer(batch.embeddings[:, :4], batch.padding[:, :4], batch.grids)
    filled = batch.embeddings.masked_fill(batch.padding.unsqueeze(-1), 1e3)
    both = mixer(filled, batch.padding, batch.grids)
    real = ~batch.padding[:, :4]
    torch.testing.assert_close(both[:, :4][real], alone[real], atol=1e-5, rtol=1e-4)


def test_its_commands_parse_and_their_settings_are_fields(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    Path("runs/alone").mkdir(parents=True)
    Path("runs/alone/options.toml").write_text(options_toml(load_options()))
    lines = [
        line.split("vocprep ", 1)[1].split() for line in "".join(blocks("console")).splitlines()
    ]
    assert len(lines) == 13
    for verb, *words in lines:
        with main.commands[verb].make_context(verb, words) as context:
            if verb != "train":
                continue
            found = context.params
            options = load_options(found["preset"] or DEFAULT_PRESET, found["settings"])
            if "encoder=spikformer" in words:
                assert options.encoder == "spikformer"
    assert any("encoder=spikformer" in words for words in lines)
