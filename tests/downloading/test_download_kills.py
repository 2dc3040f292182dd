"""A download that is killed at random bytes goes on from there, again and again."""

from __future__ import annotations

import hashlib
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from builders.mirror import Mirror

SIZE = 20_000_000
DATA = random.Random(20).randbytes(SIZE)
RATE = 8_000_000
READ = 256 << 10
CHILD = """
import sys
from pathlib import Path
from vocprep.data_dir.digests import ExpectedDigests
from vocprep.downloading.http import TransferOptions
from vocprep.downloading.mirrors import WantedFile, fetch
from vocprep.progress import NO_PROGRESS

path, url, sha256, read = sys.argv[1:]
wanted = WantedFile(path=Path(path), urls=[url], expected=ExpectedDigests(sha256=sha256))
fetch(wanted, TransferOptions(chunk_bytes=int(read)), NO_PROGRESS)
"""


def run_until(mirror: Mirror, command: list[str], count: int) -> int:
    """Run the child; kill it once the server has sent so many bytes more. Returns its status."""
    before = mirror.sent
    with subprocess.Popen(command) as child:
        while child.poll() is None and mirror.sent - before < count:
            time.sleep(0.001)
        child.send_signal(signal.SIGKILL)
        return child.wait()


def assert_survives(folder: Path, kills: int) -> None:
    """Kill as often as asked, let the last one finish, and count the bytes."""
    draw = random.Random(kills + 1)
    path, sha256 = folder / "file.bin", hashlib.sha256(DATA).hexdigest()
    killed = 0
    with Mirror({"file.bin": DATA}, rate=RATE) as mirror:
        url = mirror.url("file.bin")
        command = [sys.executable, "-c", CHILD, str(path), url, sha256, str(READ)]
        for _ in range(kills):
            status = run_until(mirror, command, draw.randrange(2 * SIZE // kills))
            killed += status == -signal.SIGKILL
            assert not path.exists() or path.read_bytes() == DATA
        assert run_until(mirror, command, 100 * SIZE) == 0
        assert path.read_bytes() == DATA
        assert sorted(item.name for item in folder.iterdir()) == ["file.bin"]
        assert killed > kills // 2
        assert mirror.sent <= 1.1 * SIZE + killed * READ


@pytest.mark.slow
def test_a_dozen_kills(tmp_path: Path):
    assert_survives(tmp_path, 6)


@pytest.mark.torture
def test_two_hundred_kills(tmp_path: Path):
    assert_survives(tmp_path, 200)
