"""``vocprep build-shards``."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from vocprep.backbones import BACKBONES, NormalisationName, listed_by_input
from vocprep.cli.common import (
    INTERRUPTED,
    PATH,
    comma_list,
    data_dir_option,
    device_option,
    json_option,
    print_json,
    print_table,
    progress,
    workers_option,
)
from vocprep.cli.inspect import megabytes, print_summary
from vocprep.cli.locked import locked_plan, refuse_choices
from vocprep.errors import UsageError
from vocprep.geometry import EdgeRule, Geometry, GeometryKind
from vocprep.options import (
    BuildChoices,
    BuildOptions,
    Decoder,
    IfExists,
    Layout,
    MaxFailures,
    ShardFormat,
)
from vocprep.recipe import EmbeddingDtype, Precision, View

if TYPE_CHECKING:
    from vocprep.building.local import Accept
    from vocprep.building.plan import BuildPlan


def _choice(alias: Any) -> click.Choice[str]:
    return click.Choice(get_args(alias))


def _max_failures(_context: click.Context, _option: click.Parameter, value: str) -> MaxFailures:
    return MaxFailures.parse(value)


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
@data_dir_option
@click.option("--out", type=PATH, required=True, help="Folder for the shards and dataset.json.")
@click.option(
    "--weights", help="PATH or random:SEED.  [default: the downloaded ones below --data-dir]"
)
@click.option("--splits", callback=comma_list, help="Comma-separated.  [default: the dataset's]")
@click.option("--limit", type=int, help="At most N pictures of each split: for a quick trial.")
@click.option("--schema", help="Label space.  [default: the dataset's first]")
@click.option("--void-unknown", is_flag=True, help='Make the label "unknown" void.')
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
@click.option("--views", callback=comma_list, help="flip adds each picture's mirror image.")
@click.option(
    "--backbone",
    type=click.Choice(list(BACKBONES)),
    default=BuildChoices.backbone,
    show_default=True,
    help=f"Frozen network: {listed_by_input()}.",
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
    help="Layers that embeddings are taken from, comma-separated: layer3,layer2.  [default: the "
    "last]",
)
@click.option(
    "--normalisation",
    type=_choice(NormalisationName),
    help="Constants of the input.  [default: those that the backbone was trained with]",
)
@click.option(
    "--precision", type=_choice(Precision), default=BuildChoices.precision, show_default=True
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
    help="Pictures a shard.",
)
@device_option
@workers_option
@click.option(
    "--decoder",
    type=_choice(Decoder),
    default=BuildOptions.decoder,
    show_default=True,
    help="Who decodes JPEGs; nvjpeg, on the GPU, makes other bits.",
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
    help="What to do when --out holds a dataset or part of one: resume builds what is missing or "
    "has changed, overwrite begins anew, fail refuses.",
)
@click.option(
    "--max-failures",
    callback=_max_failures,
    default=str(MaxFailures()),
    show_default=True,
    metavar="N|P%",
    help="Bad samples that the build survives; they are listed in quarantine.jsonl.",
)
@click.option(
    "--reuse",
    type=PATH,
    metavar="SHARDS",
    help="Dataset whose embeddings are taken over where pictures and recipe agree.",
)
@click.option(
    "--lock",
    type=PATH,
    metavar="FILE",
    help="Build the very version of this lock file, or fail; it decides all choices.",
)
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@json_option
@click.pass_context
def build_shards(
    context: click.Context,
    dataset: str | None,
    data_dir: Path,
    out: Path,
    weights: str | None,
    splits: tuple[str, ...] | None,
    limit: int | None,
    schema: str | None,
    void_unknown: bool,
    geometry: GeometryKind,
    edge: EdgeRule,
    views: tuple[View, ...] | None,
    backbone: str,
    windows: tuple[int, ...] | None,
    layers: tuple[str, ...] | None,
    normalisation: NormalisationName | None,
    precision: Precision,
    embedding_dtype: EmbeddingDtype,
    shard_format: ShardFormat,
    samples_per_shard: int,
    device: str,
    workers: int,
    decoder: Decoder,
    compiled: bool | None,
    if_exists: IfExists,
    max_failures: MaxFailures,
    reuse: Path | None,
    lock: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Build a dataset version: embeddings and targets of every picture, in shards.

    DATASET is pascal-context, voc2007, voc2010, voc2012 or the path of a dataset manifest.
    Interrupted at any moment, the same command goes on from the finished shards to the same bytes.
    Once finished, it builds again only what pictures, label maps or split files have changed.

    \b
    Example:
      vocprep build-shards voc2012 --data-dir data --out shards/voc --dry-run
      vocprep build-shards voc2012 --data-dir data --out shards/voc
      vocprep build-shards --lock voc.lock.json --data-dir data --out shards/again
    """
    options = BuildOptions(
        device=device,
        workers=workers,
        decoder=decoder,
        compiled=compiled,
        if_exists=if_exists,
        max_failures=max_failures,
        reuse=reuse,
    )

    from vocprep.building.plan import plan_build
    from vocprep.checks.lock import read_lock
    from vocprep.manifests import load_dataset

    accept = None
    if lock is not None:
        refuse_choices(context)
        locked = read_lock(lock)
        plan, accept = locked_plan(lock, locked, dataset, data_dir, weights)
        if options.max_failures == MaxFailures():
            allowed = MaxFailures(count=len(locked.quarantined))
            options = replace(options, max_failures=allowed)
    elif dataset is None:
        raise UsageError("nothing to build: name a DATASET, or give --lock FILE")
    else:
        choices = BuildChoices(
            splits=splits,
            limit=limit,
            schema=schema,
            void_unknown=void_unknown,
            geometry=Geometry(geometry=geometry, edge=edge),
            backbone=backbone,
            windows=windows,
            layers=layers,
            normalisation=normalisation,
            precision=precision,
            embedding_dtype=embedding_dtype,
            views=("identity", *(views or ())),
        )
        layout = Layout(format=shard_format, samples_per_shard=samples_per_shard)
        manifest, may_lack = load_dataset(dataset), max_failures != MaxFailures()
        plan = plan_build(manifest, data_dir, weights, choices, layout, may_lack=may_lack)
    if dry_run:
        _print_plan(plan, compiled, as_json)
    else:
        _build(plan, out, options, accept, as_json=as_json)


def _build(
    plan: BuildPlan, out: Path, options: BuildOptions, accept: Accept | None, *, as_json: bool
) -> None:
    from vocprep.building.local import build_dataset
    from vocprep.building.pipeline import COMPILE_FROM, worth_compiling
    from vocprep.building.stage_times import StageTimes

    if options.compiled is None and worth_compiling(plan, len(plan.samples)):
        click.echo(
            f"compiling the backbone first, which pays from {COMPILE_FROM:,} views on in bf16",
            err=True,
        )
    stage_times = StageTimes()
    started = time.perf_counter()
    try:
        with progress(len(plan.samples), "images") as step:
            index = build_dataset(
                plan, out, options, step, stage_times, accept or (lambda *_: None)
            )
    except KeyboardInterrupt:
        click.echo(
            "interrupted; finished shards are kept: run the same command again to go on", err=True
        )
        raise SystemExit(INTERRUPTED) from None
    seconds = time.perf_counter() - started
    if as_json:
        print_json(index.model_dump(mode="json"))
        return
    print_summary(out, index)
    spent = stage_times.seconds()
    if not any(spent.values()):
        click.echo(f"up to date: checked in {seconds:.1f} s, nothing to build")
        return
    if stage_times.reused:
        click.echo(f"embeddings of {stage_times.reused:,} records taken over")
    shares = ", ".join(f"{stage} {part:.1f}" for stage, part in spent.items())
    click.echo(
        f"{len(plan.samples) / seconds:.1f} images/s, {seconds:.1f} s; seconds of all threads: "
        f"{shares}"
    )


def _print_plan(plan: BuildPlan, compiled: bool | None, as_json: bool) -> None:
    from vocprep.building.pipeline import worth_compiling
    from vocprep.building.plan import count_patches, estimated_bytes

    if compiled is None:
        compiled = worth_compiling(plan, len(plan.samples))
    patches = count_patches(plan)
    facts = {
        "recipe": plan.recipe.short_name,
        "recipe_id": plan.recipe.recipe_id,
        "weights": plan.weights_label,
        "compiled": compiled,
        "samples": len(plan.samples),
        "patches": patches,
        "estimated_bytes": estimated_bytes(patches, plan.recipe),
        "shards": [{"name": shard.name, "samples": len(shard.samples)} for shard in plan.shards],
    }
    if as_json:
        print_json(facts)
        return
    click.echo(f"recipe   {plan.recipe.short_name}  (recipe_id {plan.recipe.recipe_id[:12]}…)")
    click.echo(f"weights  {plan.weights_label}")
    click.echo(f"backbone {'compiled first' if compiled else 'as it is, not compiled'}")
    click.echo(f"samples  {len(plan.samples):,}")
    click.echo(f"patches  {patches:,}")
    click.echo(f"bytes    about {megabytes(estimated_bytes(patches, plan.recipe))}")
    click.echo(f"shards   {len(plan.shards)}")
    print_table(("shard", "samples"), [(shard.name, len(shard.samples)) for shard in plan.shards])
    click.echo("dry run: nothing was written")
