"""``vocprep build-shards``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import click
from click.core import ParameterSource

from vocprep.backbones import (
    BACKBONES,
    NormalisationName,
    listed_by_input,
    listed_without_exact,
)
from vocprep.cli.bars import Bars, stop
from vocprep.cli.build_output import print_plan, print_result
from vocprep.cli.common import PATH, PLACE, comma_list, json_option
from vocprep.cli.shared_options import (
    data_place_option,
    device_option,
    split_flags_option,
    workers_option,
)
from vocprep.errors import UsageError
from vocprep.files.ids import MOST_CROPS
from vocprep.geometry import EdgeRule, Geometry, GeometryKind
from vocprep.options import (
    BuildChoices,
    BuildOptions,
    Decoder,
    Engine,
    IfExists,
    Layout,
    MaxFailures,
    Part,
    Projection,
    ShardFormat,
)
from vocprep.recipe import EmbeddingDtype, Precision, is_own_file
from vocprep.storage.places import Place
from vocprep.views import parse_views

if TYPE_CHECKING:
    from vocprep.building.describe import PlanDescription
    from vocprep.building.results import BuildResult, PartResult

Options = TypeVar("Options", BuildChoices, BuildOptions, Geometry, Layout)
_LOCKED_CHOICES = (
    *(
        "splits",
        "split_flags",
        "limit",
        "limit_per_split",
        "schema",
        "void_unknown",
        "geometry",
        "edge",
        "views",
        "precision",
    ),
    *("backbone", "windows", "layers", "cells", "normalisation", "project", "pca"),
    *("embedding_dtype", "shard_format", "samples_per_shard"),
)
"""Parameters that a lock file decides."""


def _choice(alias: Any) -> click.Choice[str]:
    return click.Choice(get_args(alias))


def _max_failures(_context: click.Context, _option: click.Parameter, value: str) -> MaxFailures:
    return MaxFailures.parse(value)


def _part(_context: click.Context, _option: click.Parameter, value: str | None) -> Part | None:
    return None if value is None else Part.parse(value)


def _projection(
    _context: click.Context, _option: click.Parameter, value: str | None
) -> Projection | None:
    return None if value is None else Projection.parse(value)


def _views(
    _context: click.Context, _option: click.Parameter, value: str | None
) -> tuple[str, ...] | None:
    return None if value is None else parse_views(value)


def _whole_numbers(
    context: click.Context, option: click.Parameter, value: str | None
) -> tuple[int, ...] | None:
    parts = comma_list(context, option, value)
    try:
        return None if parts is None else tuple(int(part) for part in parts)
    except ValueError as error:
        raise UsageError(f"windows {value!r}: expected whole numbers, e.g. 32,64,128") from error


@click.command("build-shards")
@click.argument("dataset", required=False)
@data_place_option
@click.option(
    "--out",
    type=PLACE,
    required=True,
    help="Folder, or URL of an object store, for the shards and dataset.json.",
)
@click.option(
    "--weights", help="PATH or random:SEED.  [default: the downloaded ones below --data-dir]"
)
@click.option("--splits", callback=comma_list, help="Comma-separated.  [default: the dataset's]")
@split_flags_option
@click.option(
    "--limit",
    type=int,
    help="At most N images in all, shared over the splits in proportion: for a quick trial.",
)
@click.option("--limit-per-split", type=int, help="At most N images of each split.")
@click.option("--schema", help="Label space.  [default: the dataset's first]")
@click.option("--void-unknown", is_flag=True, help='Make the class "unknown" void.')
@click.option(
    "--geometry",
    type=_choice(GeometryKind),
    default=Geometry.geometry,
    show_default=True,
    help="crop: shorter side to 256, centre 224×224; squash: to 224×224; native: no resize.",
)
@click.option(
    "--edge",
    type=_choice(EdgeRule),
    default=Geometry.edge,
    show_default=True,
    help="What native does past the last whole patch.",
)
@click.option(
    "--views",
    callback=_views,
    metavar="VIEWS",
    help="Further views of each image, comma-separated: flip, its mirror image; crops:N,SEED, N "
    f"random crops, at most {MOST_CROPS}.",
)
@click.option(
    "--backbone",
    default=BuildChoices.backbone,
    show_default=True,
    metavar="NAME",
    help=f"Frozen network: {' or '.join(BACKBONES)} ({listed_by_input()}), or any of timm's for "
    "the whole image, timm:NAME, or of torchvision's, torchvision:NAME, or FILE.py:FUNCTION, your "
    "own, whose code is run.",
)
@click.option(
    "--windows",
    callback=_whole_numbers,
    help="Sides of windows around each patch, comma-separated: 32,64,128 sees its surroundings "
    "too.  [default: the patch itself]",
)
@click.option(
    "--layers",
    callback=comma_list,
    help="Layers that embeddings are taken from, comma-separated: layer3,layer2; of timm and "
    "torchvision by name or index: blocks.4,-1.  [default: the last]",
)
@click.option(
    "--cells",
    type=int,
    help="Keep at most N×N cells per patch of each layer of timm's and torchvision's networks, "
    "averaged.  [default: 2, or 1 where an embedding would exceed 2,048 numbers]",
)
@click.option(
    "--normalisation",
    type=_choice(NormalisationName),
    help="Constants of the input.  [default: those that the backbone was trained with]",
)
@click.option(
    "--precision",
    type=_choice(Precision),
    help="Arithmetic of the backbone. exact: integers, the same bits on every machine; fp32, bf16: "
    "floating point, whose bits other processors may not make; tf32, fp16: the same on a GPU.  "
    f"[default: exact; fp32 with {listed_without_exact()}]",
)
@click.option(
    "--project",
    callback=_projection,
    metavar="D:SEED",
    help="Make embeddings smaller by a random projection to D numbers per patch: with exact the "
    "same bits on every machine.",
)
@click.option(
    "--pca",
    type=int,
    metavar="D",
    help="Make embeddings smaller: the first D principal components of those of the train split, "
    "whose matrix is stored with the version.",
)
@click.option(
    "--embedding-dtype",
    type=_choice(EmbeddingDtype),
    default=BuildChoices.embedding_dtype,
    show_default=True,
)
@click.option(
    "--format",
    "shard_format",
    type=_choice(ShardFormat),
    default=Layout.format,
    show_default=True,
    help="Container; holds the same either way.",
)
@click.option(
    "--samples-per-shard",
    type=int,
    default=Layout.samples_per_shard,
    show_default=True,
    help="Images per shard.",
)
@device_option
@workers_option
@click.option(
    "--processes",
    type=int,
    default=BuildOptions.processes,
    show_default=True,
    metavar="N",
    help="Processes of this machine that make shards side by side and divide the threads: for more "
    "cores, or a faster GPU, than one process keeps busy.",
)
@click.option(
    "--decoder",
    type=_choice(Decoder),
    default=BuildOptions.decoder,
    show_default=True,
    help="JPEG decoder; nvjpeg, on the GPU, gives other bits.",
)
@click.option(
    "--compile/--no-compile",
    "compiled",
    default=None,
    help="Compile the backbone: same bits, sooner.  [default: where it pays]",
)
@click.option(
    "--if-exists",
    type=_choice(IfExists),
    default=BuildOptions.if_exists,
    show_default=True,
    help="What to do when --out holds a dataset version or part of one: resume builds what is "
    "missing or has changed, overwrite starts over, fail refuses.",
)
@click.option(
    "--max-failures",
    callback=_max_failures,
    default=str(MaxFailures()),
    show_default=True,
    metavar="N|P%",
    help="Samples that may be quarantined before the build stops; quarantine.jsonl lists them.",
)
@click.option(
    "--reuse",
    type=PLACE,
    metavar="SHARDS",
    help="Dataset version, in a folder or at a URL, whose embeddings are reused where images and "
    "recipe agree.",
)
@click.option(
    "--lock",
    type=PATH,
    metavar="FILE",
    help="Build the version that this lock file pins, or fail; it decides all choices.",
)
@click.option(
    "--part",
    callback=_part,
    metavar="I/N",
    help="Make every N-th shard from the I-th on, I from 0 to N−1, and publish nothing: processes "
    "that share --out make one part each; the same command without --part publishes.",
)
@click.option(
    "--engine",
    type=_choice(Engine),
    default=BuildOptions.engine,
    show_default=True,
    help="What makes the shards: this process, or the nodes of a Ray cluster, to the same bytes. "
    "They read --data-dir and write --out under the same paths.",
)
@click.option(
    "--ray-address",
    metavar="ADDRESS",
    help="HOST:PORT of the cluster's head, or auto.  [default: $RAY_ADDRESS, else a cluster of "
    "this machine alone]",
)
@click.option(
    "--task-cpus",
    type=float,
    default=BuildOptions.task_cpus,
    show_default=True,
    help="CPUs of each Ray task, which makes one shard.",
)
@click.option(
    "--task-gpus",
    type=float,
    help="GPUs of each Ray task, or the share of one.  [default: 1 where --device is a GPU here]",
)
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@json_option
@click.pass_context
def build_shards(
    context: click.Context,
    /,
    dataset: str | None,
    data_dir: Place,
    out: Place,
    weights: str | None,
    lock: Path | None,
    dry_run: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Build a dataset version: embeddings and targets of every image, in shards.

    DATASET is pascal-context, voc2007, voc2010, voc2012 or the path of a dataset manifest.
    Interrupted at any moment, the same command continues from the finished shards to the same
    bytes. Once finished, it builds only the shards whose images, label maps or ids have changed.

    \b
    Example:
      vocprep build-shards voc2012 --data-dir data --out shards/voc --dry-run
      vocprep build-shards voc2012 --data-dir data --out shards/voc
      vocprep build-shards voc2012 --data-dir data --out shards/voc --part 0/4
      vocprep build-shards --lock voc.lock.json --data-dir data --out shards/again
    """
    describe, make = _library_calls(context, dataset, lock, flags)
    where = {"data_dir": data_dir, "weights": weights, "options": _pick(BuildOptions, flags)}
    if dry_run:
        print_plan(describe(**where), as_json=as_json)
        return
    bars = Bars(" images")
    try:
        result = make(out=out, progress=bars, **where)
    except KeyboardInterrupt:
        stop(bars, "finished shards are kept: run the same command again to continue")
    print_result(result, as_json=as_json)


def _library_calls(
    context: click.Context, dataset: str | None, lock: Path | None, flags: Mapping[str, Any]
) -> tuple[Callable[..., PlanDescription], Callable[..., BuildResult | PartResult]]:
    """Return the functions that describe and make a version: a lock file's, or one of choices."""
    from vocprep.building.describe import describe_build
    from vocprep.building.local import build
    from vocprep.checks.remake import build_locked, describe_locked

    parts: dict[str, Any] = {"dataset": dataset}
    if lock is not None:
        own = flags["backbone"] if is_own_file(flags["backbone"]) else None
        _refuse_choices(context, () if own is None else ("backbone",))
        parts["backbone"] = own
        return partial(describe_locked, lock, **parts), partial(build_locked, lock, **parts)
    if dataset is None:
        raise UsageError("nothing to build: name a DATASET, or give --lock FILE")
    views, geometry = ("identity", *(flags["views"] or ())), _pick(Geometry, flags)
    parts["choices"] = _pick(BuildChoices, {**flags, "views": views, "geometry": geometry})
    parts["layout"] = _pick(Layout, {**flags, "format": flags["shard_format"]})
    return partial(describe_build, **parts), partial(build, **parts)


def _pick(cls: type[Options], flags: Mapping[str, Any]) -> Options:
    """Make options of the flags that are called like their fields."""
    return cls(**{field.name: flags[field.name] for field in fields(cls)})


def _refuse_choices(context: click.Context, needed: Sequence[str]) -> None:
    """Refuse options beside ``--lock`` that the lock file decides, but for those it needs."""
    given = [
        name
        for name in _LOCKED_CHOICES
        if context.get_parameter_source(name) == ParameterSource.COMMANDLINE and name not in needed
    ]
    if given:
        option = given[0].removeprefix("shard_").replace("_", "-")
        raise UsageError(f"--{option} beside --lock: the lock file decides it; leave it out")
