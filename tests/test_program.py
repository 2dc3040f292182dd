"""The program as a process: signals at any moment, streams of any kind, errors nobody foresaw."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from builders.moments import signalled
from builders.versions import Built

from vocprep.heads.runs.options import TrainOptions
from vocprep.heads.training.train import train

pytestmark = pytest.mark.slow

FAKE = """
import sys, types
from pathlib import Path
{setup}
fake = types.ModuleType("vocprep.cli.main")
def run(words):
{body}
fake.run = run
sys.modules["vocprep.cli"] = types.ModuleType("vocprep.cli")
sys.modules["vocprep.cli.main"] = fake
from vocprep import program
program.GRACE = {grace}
program.main()
"""
"""The program with other work in the place of a command."""


def fake(body: str, *words: str, setup: str = "", grace: float = 60.0) -> list[str]:
    """Return the command of a program that does this in the place of a command."""
    code = FAKE.format(setup=setup, body=textwrap.indent(body, "    "), grace=grace)
    return [sys.executable, "-c", code, *words]


def start(body: str, *words: str, setup: str = "", grace: float = 60.0) -> subprocess.Popen[str]:
    command = fake(body, *words, setup=setup, grace=grace)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(child: subprocess.Popen[str], *numbers: int) -> tuple[int, str]:
    """Send signals, one after each line of output; return the exit code and standard error."""
    assert child.stdout is not None
    for number in numbers:
        assert child.stdout.readline()
        child.send_signal(number)
    _, errors = child.communicate(timeout=60)
    return child.returncode, errors


# Signals

WORK = """
try:
    print("works", flush=True)
    while True:
        time.sleep(60)
finally:
    print("cleans", flush=True)
    {cleaning}
"""
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


@pytest.mark.parametrize("number", CODES)
def test_a_signal_ends_the_work_as_an_exception(number: signal.Signals) -> None:
    child = start(WORK.format(cleaning=""), setup="import time")
    assert end(child, number) == (CODES[number], "")


def test_a_second_signal_ends_the_cleaning_without_temporary_files(tmp_path: Path) -> None:
    body = f"""
with atomic_file(Path(sys.argv[1]) / "final") as stream:
    stream.write(b"half")
    {WORK.format(cleaning="time.sleep(60)").replace(chr(10), chr(10) + "    ")}
"""
    setup = "import time; from vocprep.files.writing import atomic_file"
    child = start(body, str(tmp_path), setup=setup)
    assert end(child, signal.SIGINT, signal.SIGINT) == (130, "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "lost",
    [
        "try:\n    wait()\nexcept BaseException:\n    pass\nreturn 0",
        "try:\n    wait()\nexcept BaseException:\n    raise ValueError('replaced')",
        "class Final:\n    def __del__(self):\n        wait()\nFinal()\nwhile True:\n    wait()",
        "class Importer:\n    def find_spec(self, *_):\n        wait()\n"
        "sys.meta_path.insert(0, Importer())\ntry:\n    import wave\nexcept BaseException:\n"
        "    raise\nwhile True:\n    time.sleep(60)",
    ],
    ids=["suppressed", "replaced", "in a finaliser", "in an import"],
)
def test_an_interruption_that_a_library_loses_ends_the_process(lost: str) -> None:
    setup = "import time\ndef wait():\n    print('works', flush=True)\n    time.sleep(1)"
    assert end(start(lost, setup=setup), signal.SIGTERM) == (143, "")


def test_a_library_that_computes_on_does_not_keep_the_process() -> None:
    body = "print('works', flush=True)\nhashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"
    child = start(body, setup="import hashlib", grace=0.1)
    started = time.monotonic()
    assert end(child, signal.SIGTERM) == (143, "")
    assert time.monotonic() - started < 30


IN_THE_FIRST_IMPORT = """
import sys
class Finder:
    def find_spec(self, name, *more):
        if name == "vocprep.program":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Finder())
import vocprep.__main__
"""
BEFORE_THE_HANDLERS = """
import signal
from vocprep import program
program._open_descriptors = lambda: signal.raise_signal(signal.SIGINT)
program.main()
"""


@pytest.mark.parametrize("code", [IN_THE_FIRST_IMPORT, BEFORE_THE_HANDLERS])
def test_an_interruption_before_signals_are_handled_leaves_no_traceback(code: str) -> None:
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (130, "")


def test_a_signal_that_the_parent_ignores_is_ignored() -> None:
    child = start(
        "print('works', flush=True)\nsys.stdin.read()\nreturn 0",
        setup="import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)",
    )
    assert end(child, signal.SIGHUP)[0] == 0


@pytest.fixture(scope="module")
def run_dir(crop_hdf5: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    options = TrainOptions(epochs=1, encoder="none", device="cpu", batch_size=8)
    train(crop_hdf5.path, folder, options)
    return folder


def commands(tree: Path, shards: Path, run_dir: Path, out: Path) -> dict[str, list[object]]:
    """Words of every verb that takes a while, of little work."""
    image = tree / "VOCdevkit/VOC2010/JPEGImages/2010_000002.jpg"
    source = ["pascal-context", "--data-dir", tree]
    device = ["--device", "cpu"]
    quick = ["--epochs", 2, "--set", "encoder=none", "--checkpoint-every", 0]
    weights = ["--weights", "random:0"]
    return {
        "sample": ["sample", out / "made", "--images", 2],
        "inspect": ["inspect", shards, "--json"],
        "decode": ["decode", *source, "--out", out / "maps"],
        "train": ["train", shards, "--out", out / "run", *device, *quick],
        "build": ["build-shards", *source, "--out", out / "shards", *device, *weights],
        "evaluate": ["evaluate", run_dir, shards, "--out", out / "scores", *device],
        "predict": ["predict", run_dir, image, "--out", out / "pictures", *device, *weights],
        "verify": ["verify", tree, "--partial", "--level", "content"],
        "verify shards": ["verify", shards],
        "diff": ["diff", shards, shards],
    }


def assert_ended_by(number: int, done: subprocess.CompletedProcess[str], out: Path) -> None:
    assert done.returncode == 128 + number, done.stderr
    assert "Traceback" not in done.stderr
    assert "ignored" not in done.stderr
    left = [path.name for path in out.rglob(".tmp-*")]
    assert set(left) <= {".tmp-build"}  # finished shards, for the next build


@pytest.mark.parametrize(
    "moment",
    [
        ("sample", 1, signal.SIGINT),
        ("sample", 250, signal.SIGTERM),
        ("sample", 1250, signal.SIGINT),
        ("inspect", 600, signal.SIGTERM),
        ("decode", 950, signal.SIGTERM),
        ("predict", 2000, signal.SIGINT),
        ("train", 5000, signal.SIGTERM),
    ],
)
def test_signalled_at_a_moment_a_command_ends_at_once(
    moment: tuple[str, int, signal.Signals],
    crop_hdf5: Built,
    run_dir: Path,
    sample_tree: Path,
    tmp_path: Path,
) -> None:
    verb, at, number = moment
    words = commands(sample_tree, crop_hdf5.path, run_dir, tmp_path)[verb]
    assert_ended_by(number, signalled(at, number, words), tmp_path)


@pytest.mark.torture
def test_signalled_at_many_moments_every_command_ends_at_once(
    crop_hdf5: Built, run_dir: Path, sample_tree: Path, tmp_path: Path
) -> None:
    draw = random.Random(0)
    for verb, words in commands(sample_tree, crop_hdf5.path, run_dir, tmp_path).items():
        total = int(signalled(0, 0, words).stdout.split()[-1])
        for _ in range(20):
            shutil.rmtree(tmp_path)
            tmp_path.mkdir()
            number = draw.choice(list(CODES))
            at = draw.randrange(1, total * 9 // 10)  # the number varies with the disk's caches
            print(verb, at, number.name)  # noqa: T201
            assert_ended_by(number, signalled(at, number, words), tmp_path)


# Streams


def vocprep(*words: object, shell: str = "", **environment: str) -> subprocess.CompletedProcess:
    """Run the program in a shell that sends its output where ``shell`` says."""
    program = " ".join([sys.executable, "-m", "vocprep", *map(str, words)])
    variables = {**os.environ, **environment}
    command = ["bash", "-c", f"{program} {shell}"]
    return subprocess.run(command, capture_output=True, check=False, env=variables, timeout=200)


TEXT = "'≥ 1 × … é 日 \\udcff'"
ENCODINGS = {
    "ascii": b">= 1 x ... ? ? ?\n",
    "latin-1": ">= 1 × ... é ? ?\n".encode("latin-1"),
    "cp1252": ">= 1 × … é ? ?\n".encode("cp1252"),
    "utf-8": "≥ 1 × … é 日 ?\n".encode(),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_signs_that_an_encoding_lacks_are_replaced(encoding: str) -> None:
    body = f"import click\nclick.echo({TEXT})\nclick.echo({TEXT}, err=True)\nreturn 0"
    variables = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(fake(body), capture_output=True, check=False, env=variables)
    assert (done.returncode, done.stdout, done.stderr) == (0, *[ENCODINGS[encoding]] * 2)


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "cp1252"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=" ".join,
)
def test_commands_print_in_any_encoding(crop_hdf5: Built, environment: dict[str, str]) -> None:
    done = vocprep("inspect", crop_hdf5.path, **environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"context460-crop224-resnet32-exact@" in done.stdout


@pytest.mark.parametrize(
    ("shell", "code", "said"),
    [
        (">/dev/full", 3, "error: input or output: No space left on device; make room"),
        ("2>/dev/full", 0, ""),
        (">&-", 0, ""),
        ("2>&-", 0, ""),
        ("<&-", 0, ""),
        ("| true; exit ${PIPESTATUS[0]}", 141, ""),
        ("2>&1 >/dev/null | true; exit ${PIPESTATUS[0]}", 0, ""),
    ],
)
def test_output_that_cannot_be_written_ends_without_a_traceback(
    crop_hdf5: Built, shell: str, code: int, said: str
) -> None:
    done = vocprep("inspect", crop_hdf5.path, shell=shell)
    assert done.returncode == code
    assert done.stderr.decode().startswith(said)
    assert done.stderr.count(b"\n") == bool(said)


CLOSED_ERRORS = "2>&1 >/dev/null | true; exit ${PIPESTATUS[0]}"


@pytest.mark.parametrize("shell", ["2>/dev/full", "2>&-", CLOSED_ERRORS])
def test_an_error_that_cannot_be_printed_keeps_its_exit_code(tmp_path: Path, shell: str) -> None:
    done = vocprep("inspect", tmp_path, shell=shell)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"", b"")


def test_a_file_does_not_get_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    """Else what is printed would be written into it."""
    body = (
        "with open(sys.argv[1], 'w') as stream:\n    print('printed', flush=True)\n"
        "    import os; os.write(1, b'printed')\n    stream.write('written')\nreturn 0"
    )
    path = tmp_path / "file"
    command = ["bash", "-c", 'exec "$@" >&- 2>&-', "bash", *fake(body, str(path))]
    assert subprocess.run(command, check=False).returncode == 0
    assert path.read_text() == "written"


# Errors nobody foresaw


def test_a_fault_of_the_program_is_one_sentence_unless_the_traceback_is_wanted() -> None:
    said = "error: a fault in vocprep itself, ZeroDivisionError: division by zero; please report it"
    code, errors = end(start("1 / 0"))
    assert code == 70
    assert errors.startswith(said)
    assert errors.count("\n") == 1
    assert "VOCPREP_DEBUG=1" in errors
    code, errors = end(start("1 / 0", setup="import os; os.environ['VOCPREP_DEBUG'] = '1'"))
    assert code == 70
    assert errors.startswith("Traceback (most recent call last):")
    assert said in errors


def test_errors_are_json_in_the_process_too(tmp_path: Path) -> None:
    done = vocprep("inspect", tmp_path, "--json")
    value = json.loads(done.stdout)
    assert (done.returncode, value["ok"], value["exit_code"]) == (3, False, 3)
    assert done.stderr.decode() == f"error: {value['error']}\n"
