"""Images a second that heads are trained on, and when building the shards has paid for itself.

(a) is the project's first notebook, written plainly: one picture a step, the frozen eager backbone
in every step. (b) is the same program in batches. Both have their pictures decoded, cut into
patches and normalised in memory, and their targets unpacked, before the clock starts. (c) is plain
PyTorch over the shards: a DataLoader with vocprep's dataset and collate function, the same heads
and losses. (d) and (e) are ``vocprep train``, (f) with ``--compile``. (c) to (f) widen, pad and
unpack what the shards hold inside the clock; their heads may have another encoder.

A row's speed is that of its best epoch; the first one, in which memory is claimed, is left out. The
break-even epoch is the first after which building the shards and training on them has taken less
time than (b) has, building from nothing included.

The second table compares presets, over these shards and over generated pictures of 460 classes.
It has the rates of training, of the heads' forward pass alone, of a validation as training does it,
of ``vocprep evaluate`` with all its scores, and of ``vocprep predict``.
Each row is a process of its own: its memory is the most that it held, libraries and shards
included, and on a GPU that of the device.

On a machine that does other things, ``--busy`` counts the processor time of one thread in place of
the wall clock: images/s are then those of a core.

Run: python benchmarks/train.py [--device cuda] [--images 96] [--batch-size 32] [--repeats 2]
                                [--encoder spikformer] [--compile] [--presets default cells]
                                [--busy]
"""

from __future__ import annotations

import math
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import get_args

import numpy as np
import torch
import torch.nn.functional as F
from _pictures import Pictures, make_pictures
from _report import Cell, Column, Report, Table, command_line
from _scale_jobs import peak_bytes
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

import vocprep
from vocprep.backbones import Normalisation
from vocprep.features.devices import choose_device
from vocprep.features.image import decode_jpeg, read_image_file
from vocprep.features.networks import cifar100_resnet32
from vocprep.features.weights import load_weights
from vocprep.geometry import Geometry
from vocprep.heads.model.config import EncoderName, HeadsConfig
from vocprep.heads.model.loss_parts import unpack_states
from vocprep.heads.model.losses import compute_losses
from vocprep.heads.model.tfdet import TFDetHeads
from vocprep.heads.predict import PredictOptions, make_embedder
from vocprep.heads.runs.config import RunConfig
from vocprep.heads.runs.log import EpochMetrics
from vocprep.heads.runs.options import EvaluateOptions, StepPrecision, TrainOptions
from vocprep.heads.runs.presets import load_options
from vocprep.heads.runs.run import load_run
from vocprep.heads.scoring.split_pass import score_split
from vocprep.heads.training.train import train
from vocprep.options import BuildChoices, BuildOptions, LoaderOptions
from vocprep.placement import place_image, split_patches
from vocprep.shards.reader import Loader, ResidentDataset, ShardDataset, collate
from vocprep.storage.places import local_path

COLUMNS = (
    Column("name", ""),
    Column("images_per_s", "images/s", ",.1f"),
    Column("of_seeds_loop", "of (a)", ".1f"),
    Column("of_batched", "of (b)", ".1f"),
    Column("break_even", "break-even epoch", "d"),
)
PRESET_COLUMNS = (
    Column("name", ""),
    Column("classes", "classes", "d"),
    Column("images_per_s", "images/s", ",.1f"),
    Column("of_default", "of default", ".1f"),
    Column("forward_per_s", "forward/s", ",.1f"),
    Column("validated_per_s", "validated/s", ",.1f"),
    Column("scored_per_s", "evaluated/s", ",.1f"),
    Column("of_training", "of training", ".2f"),
    Column("predicted_per_s", "predicted/s", ",.1f"),
    Column("backbone_share", "of it backbone", ".2f"),
    Column("parameters", "parameters", ",d"),
    Column("peak_mb", "peak MB", ",.0f"),
)
PRESETS = ("default", "seed", "cells", "quick", "linear")
PREDICTED = 16
"""Pictures that are predicted with each preset."""
LR = 3e-4


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What all rows share."""

    pictures: Pictures
    shards: ShardDataset
    device: torch.device
    batch_size: int
    epochs: int
    """Epochs a row is timed for, after the first."""
    folder: Path
    encoder: EncoderName
    busy: bool
    """Whether the processor time of one thread is counted."""

    @property
    def outputs(self) -> int:
        """Outputs of the `cat` head."""
        return self.shards.label_space.outputs


class SeedTFDet(nn.Module):
    """The notebook's model: frozen trunk, pool, the encoder of nn.Transformer, two heads."""

    def __init__(self, weights: str, outputs: int) -> None:
        super().__init__()
        network = cifar100_resnet32()
        network.load_state_dict(load_weights(weights, Path()))
        self.fe = nn.Sequential(*list(network.children())[:-2]).eval().requires_grad_(False)
        self.ff = nn.AdaptiveAvgPool2d((2, 2))
        self.te = nn.Transformer(d_model=256, nhead=8, batch_first=True).encoder
        self.cat = nn.Linear(256, outputs)
        self.reg = nn.Sequential(
            *(nn.Dropout(0.5), nn.Linear(256, 1024), nn.ReLU()),
            *(nn.Dropout(0.5), nn.Linear(1024, 1024 * 4), nn.Sigmoid()),
        )

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits [B, P, C] and masks [B, P, 1024, 4] of patches [B, P, 3, 32, 32]."""
        x = torch.flatten(self.ff(self.fe(patches.flatten(0, 1))), 1)
        x = self.te(x.view(*patches.shape[:2], 256))
        return self.cat(x), self.reg(x).view(*patches.shape[:2], 1024, 4)


def seeds_loop(bench: Bench, batch_size: int) -> float:
    """(a) and (b): the backbone in every step, on pictures that are in memory."""
    samples = bench.pictures.samples()
    normalisation = Normalisation()
    mean, std = torch.tensor(normalisation.mean), torch.tensor(normalisation.std)
    patches = torch.stack(
        [
            (torch.from_numpy(_patches(local_path(sample.image_path))) / 255 - mean) / std
            for sample in samples
        ]
    )
    patches = patches.permute(0, 1, 4, 2, 3).contiguous().to(bench.device)
    records = ResidentDataset(bench.shards, "train")
    batch = collate([records[i] for i in range(len(records))]).to(bench.device)
    states = unpack_states(batch.slot_planes)
    hot = F.one_hot(batch.slot_labels.clamp(min=0), bench.outputs) * (
        batch.slot_labels >= 0
    ).unsqueeze(-1)
    hot = hot.amax(dim=2).float()
    slots = torch.arange(4, device=bench.device)
    model = SeedTFDet(bench.pictures.weights, bench.outputs).to(bench.device).train()
    model.fe.eval()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=LR)

    def epoch() -> None:
        order = torch.randperm(len(patches), device=bench.device)
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            y, z = model(patches[rows])
            masks = (states[rows].unsqueeze(-1) == slots).float()
            loss = F.binary_cross_entropy_with_logits(y, hot[rows])
            loss = loss + F.binary_cross_entropy(z, masks)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own gap
            optimizer.step()

    return _best_rate(bench, epoch)


def _patches(path: Path) -> NDArray[np.uint8]:
    return split_patches(place_image(decode_jpeg(read_image_file(path), str(path)), Geometry()))


def plain_loader(bench: Bench) -> float:
    """(c): a DataLoader over the shards, the same heads and losses, fp32."""
    loader = DataLoader(
        ResidentDataset(bench.shards, "train"),
        batch_size=bench.batch_size,
        shuffle=True,
        collate_fn=collate,
    )
    options = TrainOptions(encoder=bench.encoder)
    config = RunConfig.of(bench.shards, options).heads
    model = TFDetHeads.from_config(config).to(bench.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)

    def epoch() -> None:
        for loaded in loader:
            batch = loaded.to(bench.device)
            logits, masks = model(batch.embeddings, batch.padding, batch.grids)
            losses = compute_losses(logits, masks, batch, model.config)
            optimizer.zero_grad()
            losses.total.backward()  # type: ignore[no-untyped-call]  # torch's own gap
            optimizer.step()

    return _best_rate(bench, epoch)


def vocprep_train(
    bench: Bench, precision: StepPrecision, compiled: bool = False
) -> tuple[float, str]:
    """(d) to (f): what ``vocprep train`` does, and the precision that it took."""
    options = TrainOptions(
        epochs=1 + bench.epochs,
        batch_size=bench.batch_size,
        precision=precision,
        encoder=bench.encoder,
        compiled=compiled,
        device=str(bench.device),
        val_split="",
        validate_every=10**6,
        overwrite=True,
    )
    epochs = EpochTimes(bench.busy)
    summary = train(bench.shards, bench.folder / "run", options, on_epoch=epochs)
    return epochs.best_rate(bench.shards.count("train")), summary.precision


def now(busy: bool) -> float:
    """Return the seconds of the clock, or those of the processor."""
    return time.process_time() if busy else time.perf_counter()


class EpochTimes:
    """Called after each epoch of a training that neither validates nor saves between epochs."""

    def __init__(self, busy: bool) -> None:
        self._busy, self._ends = busy, [now(busy)]

    def __call__(self, _: EpochMetrics) -> None:
        """Note when an epoch ends."""
        self._ends.append(now(self._busy))

    def best_rate(self, images: int) -> float:
        """Return images a second of the fastest epoch after the first."""
        return images / min(end - start for start, end in pairwise(self._ends[1:]))


@dataclass(frozen=True)
class PresetSpeed:
    """What a process measured of a preset."""

    images_per_s: float
    forward_per_s: float
    """Of the heads alone, without scores: what no evaluation is faster than."""
    validated_per_s: float
    scored_per_s: float
    predicted_per_s: float
    backbone_share: float
    """Share of the time of a prediction that the backbone takes."""
    parameters: int
    peak_bytes: int


@dataclass(frozen=True)
class PresetJob:
    """What a process measures of a preset."""

    shards: Path
    run_dir: Path
    options: TrainOptions
    images: list[Path]
    """Files to predict."""
    weights: str
    busy: bool


def time_preset(job: PresetJob) -> PresetSpeed:
    """Train, evaluate and predict in this process, which does nothing else."""
    if job.busy:
        torch.set_num_threads(1)
    shards, device = ShardDataset.open(job.shards), job.options.device
    images, epochs = shards.count("train"), EpochTimes(job.busy)
    summary = train(shards, job.run_dir, job.options, on_epoch=epochs)
    on_gpu = summary.device.startswith("cuda")
    peak = torch.cuda.max_memory_allocated() if on_gpu else peak_bytes()
    run = load_run(job.run_dir, device)
    scoring = EvaluateOptions(device=device, worst=0)
    scored = _seconds(lambda: vocprep.evaluate(run, shards, "train", scoring), job.busy)
    loading = LoaderOptions(batch_size=scoring.batch_size, mode=job.options.mode, label_maps=True)
    loader = shards.loader("train", loading)
    model = run.model.to(choose_device(device)).eval()
    forward = _seconds(lambda: run_heads(model, loader), job.busy)
    validated = _seconds(lambda: score_split(model, loader, run.config.labels), job.busy)
    predicting = PredictOptions(device=device, weights=job.weights)
    predicted = _seconds(lambda: vocprep.predict(run, job.images, None, predicting), job.busy)
    embedder, geometry = make_embedder(run, predicting), run.config.recipe.geometry
    placed = [
        place_image(decode_jpeg(read_image_file(path), str(path)), geometry) for path in job.images
    ]
    embedded = _seconds(lambda: [embedder.embed_images([image]) for image in placed], job.busy)
    return PresetSpeed(
        images_per_s=epochs.best_rate(images),
        forward_per_s=images / forward,
        validated_per_s=images / validated,
        scored_per_s=images / scored,
        predicted_per_s=len(job.images) / predicted,
        backbone_share=embedded / predicted,
        parameters=summary.parameters,
        peak_bytes=peak,
    )


@torch.inference_mode()
def run_heads(model: TFDetHeads, loader: Loader) -> None:
    """Run all batches through the heads, and nothing else."""
    for loaded in loader:
        batch = loaded.to(model.device)
        model(batch.embeddings, batch.padding, batch.grids)
    if model.device.type == "cuda":
        torch.cuda.synchronize()


Made = tuple[ShardDataset, list[Path], str]
"""Shards, the files of some of their images, and the backbone's weights."""


def _seconds(act: Callable[[], object], busy: bool) -> float:
    """Return what the second of two calls takes; the first loads and compiles."""
    act()
    started = now(busy)
    act()
    return now(busy) - started


def compare_presets(
    bench: Bench, presets: Sequence[str], made: Made, title: str
) -> Iterator[dict[str, Cell]]:
    """Yield a row per preset, all trained in the same batches of the same shards."""
    shards, images, weights = made
    base: float | None = None
    for preset in presets:
        settings = [f"batch_size={bench.batch_size}", f"epochs={1 + bench.epochs}"]
        settings += ['val_split=""', "validate_every=1000000"]
        options = load_options(preset, settings, {"device": str(bench.device), "overwrite": True})
        job = PresetJob(
            Path(str(shards.path)), bench.folder / preset, options, images, weights, bench.busy
        )
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as alone:
            found = alone.submit(time_preset, job).result()
        base = found.images_per_s if preset == "default" else base
        yield {
            "name": f"{preset}, {title}",
            "classes": len(shards.label_space.names),
            "images_per_s": found.images_per_s,
            "of_default": found.images_per_s / base if base else None,
            "forward_per_s": found.forward_per_s,
            "validated_per_s": found.validated_per_s,
            "scored_per_s": found.scored_per_s,
            "of_training": found.scored_per_s / found.images_per_s,
            "predicted_per_s": found.predicted_per_s,
            "backbone_share": found.backbone_share,
            "parameters": found.parameters,
            "peak_mb": found.peak_bytes / 1e6,
        }


def build_generated(images: int, folder: Path) -> Made:
    """Draw pictures, build the shards of their 460 classes, and name pictures and weights."""
    vocprep.sample(folder / "generated", images=images)
    vocprep.build(
        "pascal-context",
        out=folder / "generated-shards",
        data_dir=folder / "generated",
        weights="random:0",
        choices=BuildChoices(splits=("train",)),
    )
    files = sorted((folder / "generated").rglob("*.jpg"))[:PREDICTED]
    return ShardDataset.open(folder / "generated-shards"), files, "random:0"


def _best_rate(bench: Bench, epoch: Callable[[], None]) -> float:
    """Return images a second of the fastest epoch after the first."""
    epoch()
    seconds = []
    for _ in range(bench.epochs):
        started = now(bench.busy)
        epoch()
        if bench.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(now(bench.busy) - started)
    return bench.shards.count("train") / min(seconds)


def build(pictures: Pictures, device: torch.device, folder: Path) -> tuple[ShardDataset, float]:
    """Build the shards and return them with the seconds that it took."""
    started = time.perf_counter()
    choices = BuildChoices(splits=("train",))
    vocprep.build(
        pictures.dataset,
        out=folder / "shards",
        data_dir=pictures.data_dir,
        weights=pictures.weights,
        choices=choices,
        options=BuildOptions(device=str(device)),
    )
    return ShardDataset.open(folder / "shards"), time.perf_counter() - started


def break_even(images: int, build_seconds: float, slow: float, fast: float) -> int | None:
    """Return the first epoch after which building and training at ``fast`` took less time.

    Speeds are in images a second; None where the slow way is not slower.
    """
    saved = images / slow - images / fast
    return math.floor(build_seconds / saved) + 1 if saved > 0 else None


def main() -> None:
    """Measure and print the table."""
    parser = command_line(__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=2, help="timed epochs a row")
    parser.add_argument("--encoder", choices=get_args(EncoderName), default=HeadsConfig.encoder)
    parser.add_argument("--busy", action="store_true", help="count processor time of a thread")
    parser.add_argument("--compile", action="store_true", help="a row more, compiled")
    parser.add_argument("--presets", nargs="+", default=PRESETS, help="rows of the second table")
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    if arguments.busy:
        torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures = make_pictures(arguments.images, folder)
        samples: dict[str, Cell] = {
            "images": arguments.images,
            "batch_size": arguments.batch_size,
            "epochs_a_row": arguments.repeats,
            "encoder": arguments.encoder,
        }
        report = Report(
            "train",
            samples,
            f"{pictures.title}, batches of {arguments.batch_size}, best of {arguments.repeats} "
            f"epochs a row, encoder {arguments.encoder}, on {device}"
            f"{', processor time of one thread' if arguments.busy else ''}",
        )
        shards, build_seconds = build(pictures, device, folder)
        bench = Bench(
            pictures=pictures,
            shards=shards,
            device=device,
            batch_size=arguments.batch_size,
            epochs=arguments.repeats,
            folder=folder,
            encoder=arguments.encoder,
            busy=arguments.busy,
        )
        rates = {
            "(a) the seed's loop, one picture a step": seeds_loop(bench, 1),
            "(b) the seed's loop in batches": seeds_loop(bench, bench.batch_size),
            "(c) plain DataLoader over the shards": plain_loader(bench),
            "(d) vocprep, fp32": vocprep_train(bench, "fp32")[0],
        }
        rate, precision = vocprep_train(bench, "auto")
        rates[f"(e) vocprep, as it chooses: {precision}"] = rate
        if arguments.compile:
            rates["(f) the same, compiled"] = vocprep_train(bench, "auto", compiled=True)[0]
        report.add(_table(rates, arguments.images, build_seconds))
        files = [local_path(sample.image_path) for sample in pictures.samples()[:PREDICTED]]
        presets, made = arguments.presets, (shards, files, pictures.weights)
        rows = [*compare_presets(bench, presets, made, "these shards")]
        generated = build_generated(arguments.images, folder)
        rows += compare_presets(bench, presets, generated, "generated pictures")
        report.add(Table("presets", PRESET_COLUMNS, rows))
        report.note(
            f"shards built in {build_seconds:.1f} s, start-up included; break-even beside (b)"
        )
        report.write(arguments.json)


def _table(rates: dict[str, float], images: int, build_seconds: float) -> Table:
    one, batched = list(rates.values())[:2]
    rows: list[dict[str, Cell]] = [
        {
            "name": name,
            "images_per_s": rate,
            "of_seeds_loop": rate / one,
            "of_batched": rate / batched,
            "break_even": break_even(images, build_seconds, batched, rate) if number > 1 else None,
        }
        for number, (name, rate) in enumerate(rates.items())
    ]
    return Table("", COLUMNS, rows)


if __name__ == "__main__":
    main()
