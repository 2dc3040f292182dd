"""How much memory is free."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vocprep import memory
from vocprep.memory import available_memory


def test_free_memory_is_some_of_the_machines() -> None:
    free = available_memory()
    assert free is not None
    assert 0 < free < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"/sys/fs/cgroup/job/memory.max": "500\n", "/proc/self/cgroup": "0::/job\n"}, 400),
        ({"/sys/fs/cgroup/job/memory.max": "max\n", "/proc/self/cgroup": "0::/job\n"}, 1024),
        ({"/sys/fs/cgroup/job/memory.max": "50\n", "/proc/self/cgroup": "0::/job\n"}, 0),
        ({"/proc/self/cgroup": "1:memory:/job\n"}, 1024),
        ({"/proc/meminfo": "MemTotal: 9 kB\n"}, None),
    ],
    ids=["group", "no limit", "more than the limit", "first version", "not told"],
)
def test_limit_of_a_control_group_holds(
    files: dict[str, str], expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = {
        "/proc/meminfo": "MemTotal: 9 kB\nMemAvailable: 1 kB\n",
        "/sys/fs/cgroup/job/memory.current": "100\n",
        **files,
    }

    class OnlyThese(type(Path())):  # type: ignore[misc]
        def read_text(self, **_: object) -> str:
            if str(self) not in there:
                raise FileNotFoundError(str(self))
            return there[str(self)]

    monkeypatch.setattr(memory, "Path", OnlyThese)
    assert available_memory() == expected
