"""How much memory is free, and where there is too little."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from vocprep import memory
from vocprep.errors import OutOfMemoryError
from vocprep.memory import LEAST_ADDRESS_SPACE, available_memory, memory_errors


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


@pytest.mark.parametrize("left", [-1, 0, LEAST_ADDRESS_SPACE // 2])
def test_nothing_begins_in_an_address_space_that_is_nearly_used_up(
    left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (used + left, used + left))
    with (
        pytest.raises(OutOfMemoryError, match=r"left of the address space, .*; raise .* or wait"),
        memory_errors("wait"),
    ):
        pytest.fail("began")
    limits = 2 * (used + 2 * LEAST_ADDRESS_SPACE,)
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    with memory_errors("wait"):
        pass
