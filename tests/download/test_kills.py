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
from vocprep.download.fetch import Wanted, fetch
from vocprep.download.transfer import TransferOptions

class Silent:
    def begin(self, name, total, done): pass
    def expect(self, total): pass
    def advance(self, count): pass
    def note(self, text): pass
    def end(self): pass

path, url, sha256, connections, read = sys.argv[1:]
options = TransferOptions(
    connections=int(connections), large_bytes=1, part_bytes=3_000_000, chunk_bytes=int(read)
)
wanted = Wanted(path=Path(path), urls=[url], expected=ExpectedDigests(sha256=sha256))
fetch(wanted, options, Silent())
"""


def run_until(mirror: Mirror, command: list[str], count: int) -> int:
    """Run the child; kill it once the server has sent so many bytes more. Returns its status."""
    before = mirror.sent
    with subprocess.Popen(command) as child:
        while child.poll() is None and mirror.sent - before < count:
            time.sleep(0.001)
        child.send_signal(signal.SIGKILL)
        return child.wait()


def assert_survives(folder: Path, kills: int, connections: int) -> None:
    """Kill as often as asked, let the last one finish, and count the bytes."""
    draw = random.Random(kills + connections)
    path, sha256 = folder / "file.bin", hashlib.sha256(DATA).hexdigest()
    killed = 0
    with Mirror({"file.bin": DATA}, rate=RATE // connections) as mirror:
        url = mirror.url("file.bin")
        command = [sys.executable, "-c", CHILD, str(path), url, sha256, str(connections), str(READ)]
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
@pytest.mark.parametrize("connections", [1, 3])
def test_a_dozen_kills(tmp_path: Path, connections: int):
    assert_survives(tmp_path, 6, connections)


@pytest.mark.torture
@pytest.mark.parametrize("connections", [1, 3])
def test_two_hundred_kills(tmp_path: Path, connections: int):
    assert_survives(tmp_path, 200, connections)
