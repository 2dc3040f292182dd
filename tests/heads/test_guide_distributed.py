"""The loop of docs/guides/distributed.md works in two processes, and goes on in an epoch."""

from __future__ import annotations

import os
import re
import socket
import sys
import tempfile
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from builders.heads import make_dataset, random_records
from builders.processes import end_all, forked

from vocprep.options import Layout
from vocprep.shards.feed.batches import Batch

GUIDE = Path(__file__).resolve().parents[2] / "docs/guides/distributed.md"


def loop() -> dict[str, object]:
    """The guide's code, but with small batches and a checkpoint after each."""
    (text,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    small = text.replace("batch_size=128", "batch_size=4").replace("step % 100 == 99", "True")
    exec(compile(small, "docs/guides/distributed.md", "exec"), names)
    return names


def run_as_rank(
    shards: Path, checkpoint: Path, stop_after: int, variables: dict[str, str], noted: Path
) -> None:
    """Run the loop, write down the ids of its batches, and end before one of a number."""
    os.environ.update(variables)
    names = loop()
    take_step: Any = names["take_step"]
    steps = 0

    def note(heads: object, optimizer: object, batch: Batch) -> None:
        nonlocal steps
        if steps == stop_after:
            sys.exit(0)
        take_step(heads, optimizer, batch)
        steps += 1
        with noted.open("a") as stream:
            print(*batch.image_ids, sep=",", file=stream)

    names["take_step"] = note
    main: Any = names["main"]
    main(str(shards), str(checkpoint), epochs=2)


def batches_in_two(shards: Path, checkpoint: Path, stop_after: int) -> list[list[str]]:
    """Return the ids of each batch that two processes draw together."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    variables = {
        "GLOO_SOCKET_IFNAME": "lo",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
    }
    folder = Path(tempfile.mkdtemp(dir=checkpoint.parent))
    noted = [folder / str(rank) for rank in range(2)]
    children = [
        forked(run_as_rank, shards, checkpoint, stop_after, variables | {"RANK": str(rank)}, path)
        for rank, path in enumerate(noted)
    ]
    assert end_all(children, 200) == [0, 0]
    lines = [path.read_text().splitlines() for path in noted]
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
