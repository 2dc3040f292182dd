"""The error boundary: what becomes of an error that any command ends with."""

from __future__ import annotations

import errno
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import click
import pytest
import torch
from builders.verbs import build_words
from click.testing import Result

from vocprep.cli.main import main
from vocprep.cli.printing import print_json
from vocprep.errors import DataError, UsageError

Run = Callable[..., Result]
WITH_JSON = sorted(
    name
    for name, command in main.commands.items()
    if any(option.name == "as_json" for option in command.params)
)


def raises(
    monkeypatch: pytest.MonkeyPatch, name: str, error: BaseException, before: Callable[[], None]
) -> list[str]:
    """Let a command raise an error; return its words."""

    def fail(**_: object) -> None:
        before()
        raise error

    command = main.commands[name]
    monkeypatch.setattr(command, "callback", fail)
    needed = [p for p in command.params if isinstance(p, click.Argument) and p.required]
    required = {option for each in command.params if each.required for option in each.opts}
    options = [words for words in (("--out", "y"), ("--to", "npy")) if words[0] in required]
    return [name, *["x"] * len(needed), *(word for words in options for word in words)]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, vocprep: Run) -> Callable[..., Result]:
    """Run a command with an error in the place of its work."""

    def run(
        name: str, error: BaseException, *more: str, before: Callable[[], None] = lambda: None
    ) -> Result:
        return vocprep(*raises(monkeypatch, name, error, before), *more)

    return run


def test_all_commands_that_report_take_json() -> None:
    assert set(main.commands) - set(WITH_JSON) == {"demo", "sample", "view"}


@pytest.mark.parametrize("name", WITH_JSON)
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("epochs 0: expected 1 or more"), 2),
        (DataError("x: damaged"), 3),
        (OSError(errno.EIO, "Input/output error", "x"), 3),
        (KeyboardInterrupt(), 130),
        (MemoryError(), 3),
    ],
    ids=lambda value: type(value).__name__,
)
def test_with_json_errors_are_json_too(
    failing: Callable[..., Result], name: str, error: BaseException, code: int
) -> None:
    result = failing(name, error, "--json")
    value = json.loads(result.stdout)
    assert (result.exit_code, value["ok"], value["exit_code"]) == (code, False, code)
    assert result.stderr.removeprefix("error: ") == f"{value['error']}\n"
    assert failing(name, error).stdout == ""


@pytest.mark.parametrize("name", WITH_JSON)
def test_with_json_a_wrong_option_is_json_too(vocprep: Run, name: str) -> None:
    result = vocprep(name, "--nonsense", "--json")
    value = json.loads(result.stdout)
    assert (result.exit_code, value["exit_code"]) == (2, 2)
    assert value["error"].startswith("No such option")
    assert "--nonsense" in result.stderr


def test_a_result_that_was_printed_stays_the_only_json(
    failing: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = failing("inspect", DataError("x"), "--json", before=lambda: print_json({"ok": False}))
    assert json.loads(result.stdout) == {"ok": False}
    assert (result.exit_code, result.stderr) == (3, "error: x\n")


def test_whatever_an_error_says_is_one_readable_line(failing: Callable[..., Result]) -> None:
    result = failing("inspect", DataError("a\nb\x1b[2J" + "x" * 10_000))
    assert result.stderr.startswith("error: a\\nb\\x1b[2Jxxx")
    assert result.stderr.count("\n") == 1
    assert len(result.stderr) < 1100


def test_faults_of_the_program_are_raised_for_tests_to_see(failing: Callable[..., Result]) -> None:
    for more in ([], ["--json"]):
        result = failing("inspect", ZeroDivisionError("division by zero"), *more)
        assert isinstance(result.exception, ZeroDivisionError)
        assert result.stderr == ""
    assert json.loads(result.stdout) == {
        "ok": False,
        "error": "ZeroDivisionError: division by zero",
        "exit_code": 70,
    }


def test_a_file_that_may_not_be_written_or_read_comes_with_advice(
    failing: Callable[..., Result], tmp_path: Path
) -> None:
    below = tmp_path / "there" / "run"
    result = failing("train", PermissionError(errno.EACCES, "Permission denied", str(below)))
    advice = f"make the folder {below.parent} writable, or choose another"
    assert result.stderr == f"error: {below}: Permission denied; {advice}\n"
    result = failing("predict", OSError(errno.EROFS, "Read-only file system", str(tmp_path)))
    assert result.stderr.endswith("Read-only file system; make it writable, or choose another\n")
    assert result.exit_code == 3


# Memory

CPU_ALLOCATOR = "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory"
SHORTAGES = [
    MemoryError("Unable to allocate 3.45 GiB for an array"),
    RuntimeError(f"{CPU_ALLOCATOR}: you tried to allocate 4 bytes"),
    RuntimeError("can't start new thread"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."),
    BrokenProcessPool("A process in the process pool was terminated abruptly"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    ImportError("\n\nPLEASE READ THIS\n\nlibx.so: failed to map segment from shared object"),
    OSError("libgomp.so.1: failed to map segment from shared object"),
]


@pytest.mark.parametrize("error", SHORTAGES, ids=lambda error: str(error)[:30])
def test_a_lack_of_memory_is_one_sentence_with_what_to_lower(
    failing: Callable[..., Result], error: Exception
) -> None:
    loading = "failed to map segment" in str(error)
    for name, advice in {
        "train": "use a smaller --batch-size or --mode streaming, or free memory",
        "evaluate": "use a smaller --batch-size, or free memory",
        "build-shards": "use fewer --workers or fewer --samples-per-shard, or free memory",
        "decode": "use fewer --workers, or free memory",
        "inspect": "use smaller inputs, or free memory",
    }.items():
        result = failing(name, error)
        assert result.exit_code == 3
        assert result.stderr.count("\n") == 1
        assert "memory does not suffice" in result.stderr
        assert "PLEASE READ" not in result.stderr
        expected = "raise the address-space limit (ulimit -v), or free memory"
        assert result.stderr.endswith(f"; {expected if loading else advice}\n")


UNTOLD = [
    SystemError("error return without exception set"),
    ImportError("cannot import name 'Dispatcher' from 'torch._dynamo.utils'"),
    RuntimeError("could not create a primitive"),
]


@pytest.mark.parametrize("error", UNTOLD, ids=lambda error: type(error).__name__)
def test_what_fails_untold_where_the_address_space_is_used_up_is_a_lack_of_memory(
    failing: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = {used: True, 2 * used: False, resource.RLIM_INFINITY: False}
    for limit, is_shortage in limits.items():
        monkeypatch.setattr(resource, "getrlimit", lambda _, limit=limit: (limit, limit))
        result = failing("train", error)
        assert (result.exit_code == 3) == is_shortage
        assert ("raise the address-space limit (ulimit -v), or" in result.stderr) == is_shortage
    monkeypatch.setattr(resource, "getrlimit", lambda _: (used, used))
    assert failing("train", ModuleNotFoundError("No module named 'timm'")).exit_code != 3


def test_damage_that_a_lack_of_memory_pretends_is_none(failing: Callable[..., Result]) -> None:
    damaged = DataError("weights.pt: damaged; fetch it again")
    damaged.__cause__ = MemoryError()
    result = failing("build-shards", damaged)
    assert "damaged" not in result.stderr
    assert "the memory does not suffice; use fewer --workers" in result.stderr


LIMITED = """
import resource, sys
import torch, vocprep.cli.build, vocprep.cli.train
import vocprep.building.local, vocprep.checks.data_content, vocprep.heads.training.train
from vocprep.program import main
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, [used + int(sys.argv[1])] * 2)
sys.argv[1:2] = []
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("room", [20 << 20, 120 << 20])
@pytest.mark.parametrize("command", ["train", "build-shards"])
def test_in_a_small_address_space_commands_end_with_a_sentence(
    shards: Path, sample_tree: Path, tmp_path: Path, command: str, room: int
) -> None:
    out = tmp_path / "out"
    train = ["train", shards, "--out", out, "--device", "cpu", "--preset", "default"]
    words = train if command == "train" else build_words(sample_tree, out)
    done = subprocess.run(
        list(map(str, [sys.executable, "-c", LIMITED, room, *words])),
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert "memory does not suffice" in last
    assert "ulimit -v" in last
    assert not out.exists()


def test_of_several_files_that_failed_each_has_a_line(vocprep: Run, tmp_path: Path) -> None:
    manifest = ['title = "Made"\nterms = "none"']
    for name in ("a", "b"):
        manifest += ["[[files]]", f'path = "{name}"', f'urls = ["file://{tmp_path}/none/{name}"]']
    (tmp_path / "made.toml").write_text("\n".join(manifest))
    done = vocprep("download", tmp_path / "made.toml", "--data-dir", tmp_path / "data")
    data = tmp_path / "data"
    *_, first, second, third = done.stderr.splitlines()
    assert first == "error: 2 of 2 files failed:"
    assert second.startswith(f"  {data / 'a'}: ")
    assert third.startswith(f"  {data / 'b'}: ")
