"""A build that stops at any moment goes on from its finished shards to the very same bytes."""

from __future__ import annotations

import hashlib
import random
import shutil
import signal
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
from builders.old_staging import as_staging_format
from builders.old_versions import label_maps_by_pillow
from builders.processes import forked
from builders.progress import CountedProgress
from builders.version_bytes import version_bytes
from builders.versions import ENGINE, TWO_PER_SHARD, make_plan
from fuzz.damage.places import put

from vocprep.building.local import build_plan
from vocprep.building.output.staging import Staging
from vocprep.errors import ShardError, UsageError
from vocprep.options import BuildChoices, BuildOptions, Layout, ShardFormat

pytestmark = pytest.mark.slow

STAGING = ".tmp-build"
FORMATS: tuple[ShardFormat, ...] = ("hdf5", "webdataset")
LAYOUTS = {name: Layout(format=name, samples_per_shard=2) for name in FORMATS}


def build_in_child(tree: str, out: str, container: ShardFormat) -> None:
    build_plan(make_plan(Path(tree), layout=LAYOUTS[container]), Path(out), ENGINE)


@pytest.fixture(scope="module", params=FORMATS)
def whole(
    request: pytest.FixtureRequest, sample_tree: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ShardFormat, dict[str, bytes]]:
    """The container, and the files of a build that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole") / "out"
    build_plan(make_plan(sample_tree, layout=LAYOUTS[request.param]), out, ENGINE)
    return request.param, version_bytes(out)


def assert_survives(
    whole: tuple[ShardFormat, dict[str, bytes]], tree: Path, folder: Path, kills: int
) -> None:
    """Kill builds at random moments; whatever has a final name is right, and so is the end."""
    container, expected = whole
    draw = random.Random(kills)
    killed = finished = 0
    out = folder / "out"
    longest = 1.0
    while killed < kills:
        child = forked(build_in_child, str(tree), str(out), container)
        started = time.monotonic()
        child.start()
        child.join(draw.uniform(0, longest))
        child.kill()
        child.join()
        killed += child.exitcode == -signal.SIGKILL
        for name, data in version_bytes(out).items() if out.exists() else ():
            if not name.startswith(".tmp-"):
                assert data == expected[name], name
        if child.exitcode == 0:
            finished += 1
            longest = 0.8 * (time.monotonic() - started)
            assert version_bytes(out) == expected
            shutil.rmtree(out)
    build_plan(make_plan(tree, layout=LAYOUTS[container]), out, ENGINE)
    assert version_bytes(out) == expected


def test_a_dozen_kills(
    whole: tuple[ShardFormat, dict[str, bytes]], sample_tree: Path, tmp_path: Path
) -> None:
    assert_survives(whole, sample_tree, tmp_path, kills=6)


@pytest.mark.torture
def test_a_hundred_kills(
    whole: tuple[ShardFormat, dict[str, bytes]], sample_tree: Path, tmp_path: Path
) -> None:
    assert_survives(whole, sample_tree, tmp_path, kills=100)


# What is taken over, and what is not


class StopError(Exception):
    """Ends a build in its middle."""


class Stopping(CountedProgress):
    """Ends a build when more than so many images are done."""

    def __init__(self, after: int) -> None:
        self._after = after

    def advance(self, count: int) -> None:
        super().advance(count)
        if self.count > self._after:
            raise StopError


def interrupt(
    tree: Path,
    out: Path,
    after: int,
    choices: BuildChoices | None = None,
    layout: Layout = TWO_PER_SHARD,
) -> None:
    """Build until so many pictures are done."""
    plan = make_plan(tree, choices, layout)
    with pytest.raises(StopError):
        build_plan(plan, out, ENGINE, progress=Stopping(after))


def embedded(
    tree: Path, out: Path, monkeypatch: pytest.MonkeyPatch, layout: Layout = TWO_PER_SHARD
) -> int:
    """Build, and count the pictures that went through the backbone."""
    counts: list[int] = []
    from vocprep.features.embed import Embedder  # noqa: PLC0415  # to call what is replaced

    original = Embedder.embed_images

    def counted(self: Embedder, images: Any) -> Any:
        counts.append(len(images))
        return original(self, images)

    with monkeypatch.context() as patched:
        patched.setattr("vocprep.features.embed.Embedder.embed_images", counted)
        build_plan(make_plan(tree, layout=layout), out, ENGINE)
    return sum(counts)


@pytest.fixture
def interrupted(sample_tree: Path, tmp_path: Path) -> Path:
    """A build that ended with some of its six shards finished."""
    interrupt(sample_tree, tmp_path / "out", after=9)
    assert staged(tmp_path / "out")
    return tmp_path / "out"


def staged(out: Path) -> list[Path]:
    """The shards that wait in the staging folder."""
    return sorted((out / STAGING).glob("*.h5"))


@pytest.fixture(scope="module")
def expected(sample_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("expected") / "out"
    build_plan(make_plan(sample_tree, layout=TWO_PER_SHARD), out, ENGINE)
    return version_bytes(out)


def test_finished_shards_are_not_built_again(
    interrupted: Path,
    sample_tree: Path,
    expected: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count = len(staged(interrupted))
    assert embedded(sample_tree, interrupted, monkeypatch) == 12 - 2 * count
    assert version_bytes(interrupted) == expected


def test_shards_finished_in_any_order_give_the_same_bytes(
    interrupted: Path,
    sample_tree: Path,
    expected: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As if the first shard had been the last to be finished."""
    first = staged(interrupted)[0]
    count = len(staged(interrupted))
    first.unlink()
    assert embedded(sample_tree, interrupted, monkeypatch) == 12 - 2 * (count - 1)
    assert version_bytes(interrupted) == expected


@pytest.mark.parametrize("suffix", ["", ".about"])
def test_damaged_staged_shard_is_built_again(
    suffix: str, interrupted: Path, sample_tree: Path, expected: dict[str, bytes]
) -> None:
    for number, shard in enumerate(staged(interrupted)):
        path = shard.with_name(shard.name + suffix)
        data = bytearray(path.read_bytes())
        data[len(data) // (number + 2)] ^= 1
        path.write_bytes(data)
    build_plan(make_plan(sample_tree, layout=TWO_PER_SHARD), interrupted, ENGINE)
    assert version_bytes(interrupted) == expected


def test_description_or_key_with_a_right_digest_of_odd_content_is_not_used(
    interrupted: Path, sample_tree: Path, expected: dict[str, bytes]
) -> None:
    bodies = [b"nan", b"[]", b'{"build": ', b'{"shard": 5}', b"\xff", b""]
    for path, body in zip((interrupted / STAGING).glob("*.about"), bodies, strict=False):
        path.write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    build_plan(make_plan(sample_tree, layout=TWO_PER_SHARD), interrupted, ENGINE)
    assert version_bytes(interrupted) == expected
    for body in (b"5", b'{"staging_format_version": 2}', b'{"a": {"b": 1}', b""):
        staging = Staging(interrupted)
        staging.path.mkdir(exist_ok=True)
        key = staging.path / "build.json"
        key.write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        assert staging.read_key() is None


def test_what_is_no_file_in_the_place_of_a_staged_one_is_removed(
    interrupted: Path, sample_tree: Path, expected: dict[str, bytes]
) -> None:
    places = ("dangling", "folder", "pipe", "loop", "device", "to folder")
    paths = [path for path in (interrupted / STAGING).iterdir() if path.name != "build.json"]
    for path, place in zip(sorted(paths), places, strict=False):
        put(path, place)
    build_plan(make_plan(sample_tree, layout=TWO_PER_SHARD), interrupted, ENGINE)
    assert version_bytes(interrupted) == expected


def test_source_that_changed_after_the_interruption_is_read_again(
    sample_tree: Path, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(sample_tree, tree)
    interrupt(tree, tmp_path / "out", after=9)
    mat = sorted((tree / "trainval").iterdir())[0]
    mat.write_bytes(b"m" + mat.read_bytes()[1:])
    build_plan(make_plan(tree, layout=TWO_PER_SHARD), tmp_path / "out", ENGINE)
    build_plan(make_plan(tree, layout=TWO_PER_SHARD), tmp_path / "fresh", ENGINE)
    assert version_bytes(tmp_path / "out") == version_bytes(tmp_path / "fresh")


def test_unfinished_build_of_another_recipe_is_refused_with_what_differs(
    interrupted: Path, sample_tree: Path
) -> None:
    before = version_bytes(interrupted)
    plan = make_plan(sample_tree, BuildChoices(schema="context59"), TWO_PER_SHARD)
    with pytest.raises(UsageError, match="an unfinished build") as caught:
        build_plan(plan, interrupted, ENGINE)
    assert "schema.name: 'context460' and 'context59'" in str(caught.value)
    assert version_bytes(interrupted) == before


def test_shard_that_a_process_of_another_build_left_is_not_taken_over(
    interrupted: Path, sample_tree: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    """Of an older build, and finished late: the newer one owns the staging folder by then."""
    interrupt(sample_tree, tmp_path / "older", 9, choices=BuildChoices(schema="context59"))
    for path in staged(tmp_path / "older"):
        for name in (path.name, f"{path.name}.about"):
            shutil.copy(path.with_name(name), interrupted / STAGING / name)
    build_plan(make_plan(sample_tree, layout=TWO_PER_SHARD), interrupted, ENGINE)
    assert version_bytes(interrupted) == expected


def test_staged_tars_of_an_earlier_release_are_written_anew_without_embedding(
    sample_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, layout = tmp_path / "out", LAYOUTS["webdataset"]
    with monkeypatch.context() as patched:
        patched.setattr("vocprep.shards.codecs.tar._VERSION", 1)
        interrupt(sample_tree, out, 9, layout=layout)
    old = sorted((out / STAGING).glob("*.tar"))
    assert old
    assert all(b".label_map.png\0" in path.read_bytes() for path in old)
    assert embedded(sample_tree, out, monkeypatch, layout) == 12 - 2 * len(old)
    build_plan(make_plan(sample_tree, layout=layout), tmp_path / "fresh", ENGINE)
    assert version_bytes(out) == version_bytes(tmp_path / "fresh")


def test_shard_of_the_finished_version_that_would_hang_hdf5_is_built_again(
    sample_tree: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    out = tmp_path / "out"
    build_plan(make_plan(sample_tree, layout=TWO_PER_SHARD), out, ENGINE)
    path = next(out.glob("*.h5"))
    data = bytearray(path.read_bytes())
    data[data.index(b"GCOL") + 24] = 0xFF  # the size of a text
    path.write_bytes(data)
    build_plan(make_plan(sample_tree, layout=TWO_PER_SHARD), out, ENGINE)
    assert version_bytes(out) == expected


def test_staged_shard_that_another_process_changes_is_not_published(
    sample_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the file system has no locks, two builds may meet in one folder."""
    out = tmp_path / "out"
    from vocprep.building.local import assemble  # noqa: PLC0415  # to call what is replaced

    def meddled(*arguments: Any) -> Any:
        staged(out)[0].write_bytes(b"another's")
        return assemble(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr("vocprep.building.local.assemble", meddled)
        with pytest.raises(ShardError, match="another process has changed or removed it"):
            build_plan(make_plan(sample_tree, layout=TWO_PER_SHARD), out, ENGINE)
    assert not (out / "dataset.json").exists()


@pytest.mark.parametrize("version", [1, 2])
def test_unfinished_build_of_an_earlier_staging_format_goes_on(
    version: int,
    interrupted: Path,
    sample_tree: Path,
    expected: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count = len(staged(interrupted))
    as_staging_format(interrupted / STAGING, version)
    assert embedded(sample_tree, interrupted, monkeypatch) == 12 - 2 * count
    assert version_bytes(interrupted) == expected


def test_shard_of_the_second_staging_format_and_another_build_is_not_taken_over(
    interrupted: Path, sample_tree: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    interrupt(sample_tree, tmp_path / "older", 9, choices=BuildChoices(schema="context59"))
    for folder in (tmp_path / "older", interrupted):
        as_staging_format(folder / STAGING, 2)
    for path in staged(tmp_path / "older"):
        for name in (path.name, f"{path.name}.about"):
            shutil.copy(path.with_name(name), interrupted / STAGING / name)
    build_plan(make_plan(sample_tree, layout=TWO_PER_SHARD), interrupted, ENGINE)
    assert version_bytes(interrupted) == expected


def test_lines_of_a_staged_shard_that_change_while_the_build_runs_are_not_published(
    interrupted: Path, sample_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vocprep.building.local import assemble  # noqa: PLC0415  # to call what is replaced

    def meddled(*arguments: Any) -> Any:
        about = next((interrupted / STAGING).glob("*.about"))
        about.write_bytes(about.read_bytes().replace(b'"row":0', b'"row":1'))
        return assemble(*arguments)

    monkeypatch.setattr("vocprep.building.local.assemble", meddled)
    with pytest.raises(ShardError, match=r"\.about: the description .* was changed or removed"):
        build_plan(make_plan(sample_tree, layout=TWO_PER_SHARD), interrupted, ENGINE)
    assert not (interrupted / "dataset.json").exists()


def test_staging_folder_that_is_a_link_is_refused(sample_tree: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / ".tmp-file").touch()
    (tmp_path / "out" / STAGING).symlink_to(tmp_path / "mine")
    with pytest.raises(UsageError, match=r"found a link to .*mine; delete the link"):
        build_plan(make_plan(sample_tree, layout=TWO_PER_SHARD), tmp_path / "out", ENGINE)
    assert (tmp_path / "mine" / ".tmp-file").exists()


@pytest.mark.parametrize("name", ["versions", "numerics_class"])
def test_unfinished_build_by_other_tools_is_refused(
    name: str, interrupted: Path, sample_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its shards and the new ones would be no version that anybody could make in one go."""
    where = "building.plan.versions" if name == "versions" else "building.local.numerics_class"
    monkeypatch.setattr(f"vocprep.{where}", lambda *_: {"torch": "0"})
    with pytest.raises(UsageError, match=f"{name}.torch"):
        build_plan(make_plan(sample_tree, layout=TWO_PER_SHARD), interrupted, ENGINE)


def test_unfinished_build_whose_label_maps_pillow_wrote_is_refused_and_kept(
    sample_tree: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with label_maps_by_pillow():
        interrupt(sample_tree, out, after=5)
    before = version_bytes(out)
    assert staged(out)
    with pytest.raises(UsageError) as caught:
        build_plan(make_plan(sample_tree, layout=TWO_PER_SHARD), out, ENGINE)
    assert str(caught.value) == (
        f"{out}: holds an unfinished build by other versions, there and here: versions.zlib: "
        f"no value and '{zlib.ZLIB_RUNTIME_VERSION}'; finish it with those, choose another --out, "
        "or --if-exists overwrite"
    )
    assert version_bytes(out) == before


def test_overwrite_discards_an_unfinished_build_of_another_recipe(
    interrupted: Path, sample_tree: Path, tmp_path: Path
) -> None:
    plan = make_plan(sample_tree, BuildChoices(schema="context59"), TWO_PER_SHARD)
    overwrite = BuildOptions(device="cpu", workers=1, if_exists="overwrite")
    build_plan(plan, interrupted, overwrite)
    build_plan(plan, tmp_path / "fresh", ENGINE)
    assert version_bytes(interrupted) == version_bytes(tmp_path / "fresh")


def test_fail_refuses_an_unfinished_build(interrupted: Path, sample_tree: Path) -> None:
    before = version_bytes(interrupted)
    fail = BuildOptions(device="cpu", workers=1, if_exists="fail")
    with pytest.raises(UsageError, match="an unfinished build"):
        build_plan(make_plan(sample_tree, layout=TWO_PER_SHARD), interrupted, fail)
    assert version_bytes(interrupted) == before


@pytest.mark.parametrize("moved", [1, 3, 6])
def test_crash_while_shards_get_their_names_loses_nothing(
    moved: int,
    sample_tree: Path,
    expected: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As after a kill: nothing of it is undone by the process itself."""
    out = tmp_path / "out"
    rename = Path.rename
    left = iter(range(moved))

    def crash(self: Path, target: Path) -> Path:
        counts = self.parent.name == STAGING and target.name.endswith((".h5", "dataset.json"))
        if counts and next(left, None) is None:
            raise StopError
        return rename(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", crash)
        patched.setattr("vocprep.files.replacing.Replacement.restore", lambda _: None)
        with pytest.raises(StopError):
            build_plan(make_plan(sample_tree, layout=TWO_PER_SHARD), out, ENGINE)
    assert len(list(out.glob("*.h5"))) == moved
    assert embedded(sample_tree, out, monkeypatch) == 0
    assert version_bytes(out) == expected
