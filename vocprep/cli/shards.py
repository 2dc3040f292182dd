"""``vocprep build-shards`` and ``vocprep inspect``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from vocprep.cli.common import (
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
from vocprep.geometry import EdgeRule, Geometry, GeometryKind
from vocprep.recipe import (
    Choices,
    EmbeddingDtype,
    EngineOptions,
    IfExists,
    Layout,
    Precision,
    ShardFormat,
    View,
)

if TYPE_CHECKING:
    from vocprep.shards.build import BuildPlan
    from vocprep.shards.index import DatasetIndex


def _choice(alias: Any) -> click.Choice[str]:
    return click.Choice(get_args(alias))


@click.command("build-shards")
@click.argument("dataset")
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
@click.option("--precision", type=_choice(Precision), default=Choices.precision, show_default=True)
@click.option(
    "--embedding-dtype",
    type=_choice(EmbeddingDtype),
    default=Choices.embedding_dtype,
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
    "--compile/--no-compile",
    "compiled",
    default=None,
    help="Compile the backbone: same bits, sooner.  [default: where it pays]",
)
@click.option(
    "--if-exists",
    type=_choice(IfExists),
    default=EngineOptions.if_exists,
    show_default=True,
    help="What to do when --out holds a finished dataset.",
)
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@json_option
def build_shards(
    dataset: str,
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
    precision: Precision,
    embedding_dtype: EmbeddingDtype,
    shard_format: ShardFormat,
    samples_per_shard: int,
    device: str,
    workers: int,
    compiled: bool | None,
    if_exists: IfExists,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Build a dataset version: embeddings and targets of every picture, in shards.

    DATASET is pascal-context, voc2007, voc2010, voc2012 or the path of a dataset manifest.

    \b
    Example:
      vocprep build-shards voc2012 --data-dir data --out shards/voc --dry-run
      vocprep build-shards voc2012 --data-dir data --out shards/voc
    """
    choices = Choices(
        splits=splits,
        limit=limit,
        schema=schema,
        void_unknown=void_unknown,
        geometry=Geometry(geometry=geometry, edge=edge),
        precision=precision,
        embedding_dtype=embedding_dtype,
        views=("identity", *(views or ())),
    )
    layout = Layout(format=shard_format, samples_per_shard=samples_per_shard)
    options = EngineOptions(device=device, workers=workers, compiled=compiled, if_exists=if_exists)

    from vocprep.engines.local import build_dataset, worth_compiling
    from vocprep.shards.accounts import Accounts
    from vocprep.shards.build import plan_build
    from vocprep.sources.manifest import load_dataset

    plan = plan_build(load_dataset(dataset), data_dir, weights, choices, layout)
    if dry_run:
        _print_plan(plan, worth_compiling(plan) if compiled is None else compiled, as_json)
        return
    accounts = Accounts()
    started = time.perf_counter()
    with progress(len(plan.samples), "images") as step:
        index = build_dataset(plan, out, options, step, accounts)
    seconds = time.perf_counter() - started
    if as_json:
        print_json(index.model_dump(mode="json"))
        return
    _print_summary(out, index)
    shares = ", ".join(f"{stage} {spent:.1f}" for stage, spent in accounts.seconds().items())
    click.echo(
        f"{len(plan.samples) / seconds:.1f} images/s, {seconds:.1f} s; seconds of all threads at "
        f"work: {shares}"
    )


def _print_plan(plan: BuildPlan, compiled: bool, as_json: bool) -> None:
    from vocprep.shards.build import count_patches, estimated_bytes

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
    click.echo(f"bytes    about {_megabytes(estimated_bytes(patches, plan.recipe))}")
    click.echo(f"shards   {len(plan.shards)}")
    print_table(("shard", "samples"), [(shard.name, len(shard.samples)) for shard in plan.shards])
    click.echo("dry run: nothing was written")


def _print_summary(out: Path, index: DatasetIndex) -> None:
    """Print what a dataset version is: identities first, then what it holds."""
    recipe = index.recipe
    click.echo(index.short_id)
    click.echo(f"recipe_id   {index.recipe_id}")
    click.echo(f"source_id   {index.source_id}")
    click.echo(f"content_id  {index.content_id}")
    click.echo(f"dataset     {recipe.dataset}, schema {recipe.schema.name}")
    views = ", ".join(recipe.views)
    click.echo(f"views       {views}; embeddings {recipe.embedding_dtype}, {recipe.precision}")
    click.echo(f"weights     {index.weights}")
    counts = index.statistics["splits"]
    print_table(
        ("split", "records", "patches", "void %", "outside top 4 %"),
        [
            (
                split,
                facts["records"],
                facts["patches"],
                100 * facts["void_pixels"] / facts["pixels"],
                100 * facts["other_pixels"] / facts["pixels"],
            )
            for split, facts in counts.items()
        ],
    )
    size = sum(shard.bytes for shard in index.shards)
    click.echo(f"{len(index.shards)} {index.container} shards, {_megabytes(size)}, in {out}")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


@click.command()
@click.argument("shards", type=PATH)
@json_option
def inspect(shards: Path, as_json: bool) -> None:
    """Say what a dataset version is and holds: its identities, recipe, splits, shards.

    \b
    Example:
      vocprep inspect shards/voc
    """
    from vocprep.shards.index import check_files, read_index

    index = read_index(shards)
    check_files(shards, index)
    if as_json:
        print_json({**index.model_dump(mode="json"), "short_id": index.short_id})
        return
    _print_summary(shards, index)
    print_table(
        ("shard", "records", "patches", "bytes", "sha256"),
        [(s.name, s.records, s.patches, s.bytes, s.sha256[:12] + "…") for s in index.shards],
    )
    click.echo("numerics    " + ", ".join(f"{k} {v}" for k, v in index.numerics_class.items()))
    click.echo("versions    " + ", ".join(f"{k} {v}" for k, v in index.versions.items()))
