"""``vocprep demo``: the whole main job on generated data, one printed command after another."""

from __future__ import annotations

import shlex
import shutil
import time
from pathlib import Path

import click

from vocprep.cli.common import PATH

WEIGHTS = "random:0"


@click.command()
@click.argument("folder", type=PATH, metavar="[DIR]", default=Path("vocprep-demo"))
@click.option("--images", default=240, show_default=True, help="Images to generate.")
@click.option("--epochs", default=14, show_default=True, help="Epochs to train.")
@click.pass_context
def demo(context: click.Context, folder: Path, images: int, epochs: int) -> None:
    """Do the whole main job on generated data: offline, in minutes, no arguments needed.

    Generates a sample data dir, builds shards from it, trains the heads, draws predictions,
    evaluates and writes a report of both, printing each command that it runs. DIR is new, empty, or
    that of an earlier demo, which is replaced.

    \b
    Example:
      vocprep demo
    """
    from vocprep.data_dir.layout import list_samples
    from vocprep.data_dir.limits import Limit
    from vocprep.manifests import load_dataset

    started = time.perf_counter()
    data, shards, run, overlays = (folder / n for n in ("data", "shards", "run", "pictures"))
    version_page, run_page = folder / "shards.html", folder / "run.html"
    _clear(folder, data)
    _run(context, "sample", data, "--images", images)
    _run(
        context,
        *("build-shards", "pascal-context", "--data-dir", data, "--weights", WEIGHTS),
        *("--out", shards, "--if-exists", "overwrite"),
    )
    click.echo(_agreement(shards))
    _run(
        context,
        *("train", shards, "--out", run, "--epochs", epochs, "--batch-size", 8),
        *("--validate-every", 7, "--overwrite"),
    )
    chosen = [
        item.image_path
        for item in list_samples(data, load_dataset("pascal-context"), ["val"], Limit(total=3))
    ]
    _run(context, "predict", run, *chosen, "--weights", WEIGHTS, "--out", overlays)
    _run(context, "evaluate", run, shards)
    _run(context, "report", shards, "--data-dir", data, "--out", version_page)
    _run(context, "report", run, shards, "--data-dir", data, "--out", run_page)
    click.echo(
        f"\nThe whole job took {time.perf_counter() - started:.0f} s. The backbone was untrained "
        f"({WEIGHTS}): the generated\nimages need no better one, photographs do "
        "(vocprep download resnet32-cifar100).\n\n"
        f"  data dir   {data}\n  shards     {shards}\n  run        {run}\n"
        f"  overlays   {overlays}\n"
        f"  reports    {version_page}, {run_page}: open them in a browser\n"
        f"  browse     vocprep view {shlex.join(map(str, (shards, run)))} --data-dir {data}"
    )


def _clear(folder: Path, data: Path) -> None:
    """Remove an earlier demo's data; UsageError when ``folder`` holds anything else."""
    from vocprep.errors import UsageError
    from vocprep.synthetic.dataset import MARKER

    if (data / MARKER).is_file():
        shutil.rmtree(data)
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: is not empty and no earlier demo's; choose another DIR")


def _agreement(shards: Path) -> str:
    """Return whether the version is the README's, which the sample's lock file pins."""
    from vocprep.checks.lock import read_lock
    from vocprep.manifests import manifests_dir
    from vocprep.shards.index import read_index

    lock = read_lock(manifests_dir() / "locks" / "sample.lock.json")
    index = read_index(shards)
    if index.recipe_id != lock.recipe_id:
        return "the README has no content_id of so many images to compare with"
    if index.content_id == lock.content_id:
        return "content_id agrees with the README's, as it does on every machine"
    if index.source_id != lock.source_id:
        reason = "source_id does: Pillow compresses the sample's pictures to other bytes here"
    elif index.targets_id != lock.targets_id:
        reason = "targets_id does, though source_id agrees: please report it"
    else:
        reason = "the embeddings do, though the probe of this machine passed: please report it"
    return f"content_id differs from the README's, {lock.content_id[:12]}…, since {reason}"


def _run(context: click.Context, *words: object) -> None:
    """Print a command as a user would type it, and run it; a command that fails ends the demo."""
    program = context.find_root().command
    arguments = [str(word) for word in words]
    click.echo(f"\n$ vocprep {shlex.join(arguments)}")
    code = program.main(args=arguments, prog_name="vocprep", standalone_mode=False)
    if code:
        context.exit(code)
