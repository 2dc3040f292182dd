"""The package as a whole: light to import, documented, layered, complete when installed."""

from __future__ import annotations

import ast
import doctest
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from builders.records import make_record
from builders.versions import write_records

import vocprep
from vocprep import errors
from vocprep.cli.commands import SENTENCES
from vocprep.cli.main import main

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "vocprep"
MODULES = sorted(PACKAGE.rglob("*.py"))
HEAVY = ("torch", "h5py", "matplotlib", "scipy", "webdataset")


def module_name(path: Path) -> str:
    """The dotted name of a module's file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def run(*command: str, **options: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(  # type: ignore[call-overload]
        command, capture_output=True, text=True, check=False, timeout=300, **options
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done


def loaded_modules(code: str) -> set[str]:
    """Top-level modules that are loaded after ``code`` has run in a fresh interpreter."""
    report = "import atexit, sys; atexit.register(lambda: print('\\n'.join(sys.modules)))\n"
    return {name.split(".")[0] for name in run(sys.executable, "-c", report + code).stdout.split()}


def test_importing_vocprep_loads_nothing_heavy() -> None:
    loaded = loaded_modules("import vocprep")
    assert "vocprep" in loaded
    assert not loaded & {*HEAVY, "numpy", "click"}


PROGRAM = """
import contextlib, io, json, sys
from vocprep.cli.main import run
for words in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()):
        assert run(words) == 0, words
    loaded = {name.partition(".")[0] for name in sys.modules}
    print(json.dumps(sorted(loaded)))
"""


@pytest.mark.slow
def test_commands_load_what_they_use(tmp_path: Path) -> None:
    """One process runs them all, the lightest first: what is loaded after each is what it may."""
    path, records = tmp_path / "version", [make_record("a"), make_record("b")]
    version = str(write_records(path, records))
    helps = [([name, "--help"], {"pydantic"}) for name in main.commands]
    steps: list[tuple[list[str], set[str]]] = [
        (["--version"], set()),
        (["--help"], set()),
        *helps,
        (["inspect", version], {"pydantic"}),
        (["diff", version, version], {"pydantic", "numpy", "PIL"}),
        (["verify", version], {"pydantic", "numpy", "PIL"}),
        (["verify", version, "--level", "content"], {"pydantic", "numpy", "PIL", "h5py"}),
    ]
    given = json.dumps([words for words, _ in steps])
    lines = run(sys.executable, "-c", PROGRAM, input=given).stdout.splitlines()
    for (words, may), line in zip(steps, lines, strict=True):
        loaded = set(json.loads(line))
        assert "click" in loaded
        assert loaded & {*HEAVY, "numpy", "PIL", "pydantic"} <= may, words


def test_the_list_of_commands_has_the_first_sentence_of_each() -> None:
    for name, command in main.commands.items():
        first = (command.help or "").partition("\n\n")[0]
        assert SENTENCES[name] == " ".join(first.split()), name
    with pytest.raises(KeyError):
        main.commands["nonsense"]


@pytest.mark.slow
def test_the_module_runs_as_a_program() -> None:
    assert "build-shards" in run(sys.executable, "-m", "vocprep", "--help").stdout
    assert vocprep.__version__ in run(sys.executable, "-m", "vocprep", "--version").stdout


@pytest.mark.parametrize("name", vocprep.__all__)
def test_public_names_are_there(name: str) -> None:
    assert getattr(vocprep, name) is not None
    assert name in dir(vocprep)


def test_verbs_are_functions_when_every_module_is_loaded() -> None:
    """A room called like a verb would take the verb's place as soon as it is imported."""
    for path in MODULES:
        if path.stem != "__main__":
            importlib.import_module(module_name(path))
    verbs = {"build" if name == "build-shards" else name for name in main.commands} - {"demo"}
    assert len(verbs) > 8
    assert [verb for verb in verbs if not callable(getattr(vocprep, verb))] == []


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        vocprep.nothing  # noqa: B018


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_modules_import_on_their_own(path: Path) -> None:
    if path.stem == "__main__":
        return
    name = module_name(path)
    assert importlib.import_module(name).__doc__


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_examples_in_docstrings_run(path: Path) -> None:
    if path.stem == "__main__":
        return
    name = module_name(path)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert doctest.testmod(importlib.import_module(name), optionflags=flags).failed == 0


def undocumented(path: Path) -> list[str]:
    """Public functions, classes and methods of a module without a docstring."""
    found: list[str] = []

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            is_overload = any(ast.unparse(each) == "overload" for each in node.decorator_list)
            if node.name.startswith("_") or is_overload:
                continue
            if ast.get_docstring(node) is None:
                found.append(f"{prefix}{node.name}")
            if isinstance(node, ast.ClassDef):
                visit(node.body, f"{prefix}{node.name}.")

    tree = ast.parse(path.read_text(encoding="utf-8"))
    visit(tree.body, "")
    return found if ast.get_docstring(tree) else ["module", *found]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_everything_public_has_a_docstring(path: Path) -> None:
    assert undocumented(path) == []


def test_errors_have_the_documented_exit_codes() -> None:
    assert errors.UsageError.exit_code == 2
    assert errors.DataError.exit_code == 3
    assert errors.SourceUnavailableError.exit_code == 4
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert all(issubclass(kind, errors.VocprepError) for kind in kinds)
    for kind in kinds:
        assert kind.__name__ in (errors.__doc__ or "")
        if issubclass(kind, errors.DataError):
            assert kind.exit_code == 3


def test_imports_run_one_way() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    if not program.is_file():
        pytest.skip("import-linter is not installed")
    run(str(program), "--no-cache", cwd=ROOT)


def test_the_container_has_extras_and_a_python_that_there_are() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    arguments = dict(re.findall(r"^ARG (\w+)=(\S*)", (ROOT / "Containerfile").read_text(), re.M))
    assert set(arguments["EXTRAS"].split(",")) <= set(project["optional-dependencies"])
    least = project["requires-python"].removeprefix(">=")
    assert [*map(int, arguments["PYTHON"].split("."))] >= [*map(int, least.split("."))]


@pytest.mark.slow
def test_the_wheel_carries_the_manifests(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("vocprep", "manifests"):
        shutil.copytree(ROOT / name, tree / name, ignore=ignored)
    for path in (ROOT / "pyproject.toml", *ROOT.glob("README*"), *ROOT.glob("LICENSE*")):
        shutil.copy(path, tree)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-index"]
    wheels, installed = tmp_path / "wheels", tmp_path / "installed"
    run(*pip, "wheel", "--no-build-isolation", *offline, "-w", str(wheels), str(tree))
    run(*pip, "install", *offline, "--target", str(installed), *map(str, wheels.glob("*.whl")))
    code = """
import sys
import tomllib
from pathlib import Path
import vocprep
from vocprep.manifests import load_dataset, load_source, manifest_names, manifests_dir
from vocprep.labels.label_space import load_label_space
from vocprep.heads.runs.presets import load_options, preset_names
package = Path(vocprep.__file__).parent
assert package == Path(sys.argv[1]) / "vocprep", package
assert manifests_dir() == package / "shipped_manifests"
dataset = load_dataset("pascal-context")
[load_source(name) for name in manifest_names("sources")]
[load_label_space(name) for name in dataset.schemas]
names = ["cells", "default", "linear", "quick", "seed", "wide"]
assert [load_options(name).preset for name in preset_names()] == names
print(len(manifest_names("datasets")), (package / "py.typed").is_file())
"""
    environment = {**os.environ, "PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = run(sys.executable, "-c", code, str(installed), cwd=elsewhere, env=environment)
    assert done.stdout.split() == [str(len(list((ROOT / "manifests/datasets").iterdir()))), "True"]
