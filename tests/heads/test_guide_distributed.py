"""The loop of docs/guides/distributed.md works in two processes, and goes on in an epoch."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
from builders.heads import make_dataset, random_records

from vocprep.options import Layout

GUIDE = Path(__file__).resolve().parents[2] / "docs/guides/distributed.md"
CHILD = """
import sys
from test_guide_distributed import loop

shards, checkpoint, stop_after = sys.argv[1:]
names = loop()
steps, take_step = [], names["take_step"]

def noted(heads, optimizer, batch):
    if len(steps) == int(stop_after):
        sys.exit(0)
    take_step(heads, optimizer, batch)
    steps.append(" ".join(batch.image_ids))
    print(*batch.image_ids, sep=",", flush=True)

names["take_step"] = noted
names["main"](shards, checkpoint, epochs=2)
"""


def loop() -> dict[str, object]:
    """The guide's code, but with small batches and a checkpoint after each."""
    (text,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    small = text.replace("batch_size=128", "batch_size=4").replace("step % 100 == 99", "True")
    exec(compile(small, "docs/guides/distributed.md", "exec"), names)
    return names


def batches_in_two(shards: Path, checkpoint: Path, stop_after: int) -> list[list[str]]:
    """Return the ids of each batch that two processes draw together."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    variables = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
        "GLOO_SOCKET_IFNAME": "lo",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
    }
    command = [sys.executable, "-c", CHILD, str(shards), str(checkpoint), str(stop_after)]
    children = [
        subprocess.Popen(
            command, env={**variables, "RANK": str(rank)}, stdout=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    lines = [child.communicate(timeout=200)[0].splitlines() for child in children]
    assert [child.returncode for child in children] == [0, 0]
    return [sorted(",".join(parts).strip(",").split(",")) for parts in zip(*lines, strict=True)]


@pytest.mark.slow
def test_its_loop_goes_on_where_it_was(tmp_path: Path) -> None:
    records = random_records("train", [(1, 2), (2, 1), (1, 1)] * 3)
    path = make_dataset(tmp_path / "shards", {"train": records}, Layout(samples_per_shard=2)).path
    whole = batches_in_two(Path(path), tmp_path / "whole.pt", 99)
    assert [len(batch) for batch in whole] == [4, 4, 1, 4, 4, 1]
    ids = sorted(record.image_id for record in records)
    assert sorted(chain(*whole[:3])) == sorted(chain(*whole[3:])) == ids
    before = batches_in_two(Path(path), tmp_path / "stopped.pt", 2)
    after = batches_in_two(Path(path), tmp_path / "stopped.pt", 99)
    assert before + after == whole
