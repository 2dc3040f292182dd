"""The short form of ``make fuzz``, and that a fault of any sort is found and can be replayed."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from builders.workers import faulty

from fuzz import world
from fuzz.__main__ import fuzz, parse
from fuzz.guard import Guard
from fuzz.inputs import Input, from_json, make_input, to_json
from fuzz.judge import judge, message_problem
from fuzz.kinds import KINDS
from fuzz.verbs import VERBS, BrokenPromise, Job, Verb
from fuzz.worker import Done
from vocprep.errors import ShardError

pytestmark = pytest.mark.slow

SEED = "4"
"""Of the short form."""


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "world"
    world.prepare(folder)
    return folder


@pytest.fixture(scope="module")
def guard(sound: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guard]:
    """One worker, which is slow to start."""
    with Guard(sound, tmp_path_factory.mktemp("worker"), int(SEED), 1) as started:
        yield started


def test_every_kind_of_file_once(
    guard: Guard, sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failures = str(tmp_path / "failures")
    options = parse(["--inputs", str(len(KINDS)), "--seed", SEED, "--failures", failures])
    code = fuzz(options, guard, sound)
    printed = capsys.readouterr().out
    assert code == 0, printed
    assert all(f"\n{kind.name} " in printed for kind in KINDS)


def test_sound_files_pass_every_verb(guard: Guard, sound: Path) -> None:
    tasks: dict[str, Input] = {}
    for kind in KINDS:
        for pattern, verbs in kind.files.items():
            path = min(sound.glob(pattern))
            same = {str(path.relative_to(sound)): path.read_bytes()}
            for verb in verbs:
                tasks.setdefault(verb, Input(0, len(tasks), kind.name, verb, same))
    found = {done.verb: (done.state, done.detail) for done in guard.run(iter(tasks.values()))}
    assert found.keys() == tasks.keys()
    del found["check mat"]  # one of the files that it looks at is damaged in every world
    assert set(found.values()) == {("harmless", "")}, found


def test_an_input_is_decided_by_its_seed_and_number(sound: Path) -> None:
    for number in range(40):
        made = make_input(sound, 5, number)
        assert made == make_input(sound, 5, number)
        stored = json.loads(json.dumps(to_json(made, sound)))
        assert from_json(stored, sound) == made
    assert make_input(sound, 5, 0) != make_input(sound, 6, 0)


def test_every_kind_has_sound_files_and_verbs(sound: Path) -> None:
    for kind in KINDS:
        for pattern, verbs in kind.files.items():
            assert list(sound.glob(pattern)), pattern
            assert set(verbs) <= VERBS.keys()


def _outcome(
    act: Callable[[Job], bool], sound: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Return the verdict on a verb of the test's own."""
    monkeypatch.setitem(VERBS, "own", Verb(act, ("space.toml",)))
    (folder / "tmp").mkdir()
    (folder / "work").mkdir()
    made = Input(0, 0, "index", "own", {"space.toml": b"x"})
    verdict = judge(made, sound, folder / "work", folder / "tmp")
    return f"{verdict.state}: {verdict.detail}"


def _raise(error: Exception) -> bool:
    raise error


def _leave(name: str) -> bool:
    Path(name).write_bytes(b"x")
    return True


def _warn() -> bool:
    warnings.warn("odd", stacklevel=1)
    return True


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (lambda _: True, "harmless: "),
        (lambda _: False, "found: "),
        (lambda _: _raise(ShardError("a: expected b")), "refused: a: expected b"),
        (lambda _: _raise(ShardError("")), "failure: an empty message"),
        (lambda _: _raise(ShardError("a\nb")), "failure: a message with '\\n' in it"),
        (lambda _: _raise(ShardError("x" * 1501)), "failure: a message of 1501 letters"),
        (lambda _: _raise(OSError(28, "full")), "failure: OSError: [Errno 28] full"),
        (lambda _: _raise(MemoryError()), "failure: MemoryError"),
        (lambda _: _raise(BrokenPromise("other bytes")), "failure: broken promise: other bytes"),
        (lambda _: click.echo("a\x07") is None, "failure: output with '\\x07' in it"),
        (lambda _: _leave(".tmp-1234-a"), "failure: .tmp-1234-a was changed"),
        (lambda _: _leave("space.toml"), "failure: space.toml was changed"),
        (lambda _: _leave("../tmp/x"), "failure: x was left among temporary files"),
    ],
)
def test_what_counts_as_a_failure(
    act: Callable[[Job], bool],
    expected: str,
    sound: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert _outcome(act, sound, tmp_path, monkeypatch).startswith(expected)


def test_a_warning_is_a_failure(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        found = _outcome(lambda _: _warn(), sound, tmp_path, monkeypatch)
    assert found.startswith("failure: warning: UserWarning: odd")


def test_several_files_have_a_line_each() -> None:
    assert message_problem("2 of 3 files failed:\n  a: is missing\n  b: is missing") is None
    assert message_problem("a: is missing\n  b: is missing") is not None


def test_a_worker_that_hangs_dies_or_takes_much_memory_is_a_failure(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fuzz.guard.SECONDS", 0.5)
    monkeypatch.setattr("fuzz.guard.quiet_exit", faulty)
    with Guard(sound, tmp_path, 0, 1) as guard:
        found: dict[int, Done] = {done.number: done for done in guard.run(iter(range(5)))}
    assert {number: done.state for number, done in found.items()} == {
        **{0: "refused", 1: "failure", 2: "failure", 3: "failure", 4: "refused"}
    }
    assert "took more than" in found[1].detail
    assert "where it was" in found[1].trace
    assert "SIGSEGV" in found[2].detail
    assert "3,072 MB" in found[3].detail


def test_damage_that_is_sealed_gets_past_the_digests(sound: Path) -> None:
    """Otherwise only the first check of each reader would be tried."""
    sealed = [
        made
        for made in (make_input(sound, 3, number) for number in range(400))
        if made.sealed and made.verb.startswith("read") and made.kind in ("hdf5", "tar")
    ]
    assert {made.kind: len(made.changes) for made in sealed} == {"hdf5": 2, "tar": 2}
