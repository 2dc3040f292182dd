"""Options: what a user sets of a build and of a loader.

``BuildChoices`` are the part of a recipe that a user chooses. ``Layout`` and ``BuildOptions`` are
how records are laid out and how they are made, ``LoaderOptions`` how batches are drawn,
``VerifyOptions`` how a version is checked: none of them changes the content of a record. Options of
the heads are in ``vocprep.heads.runs.options``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import field, replace
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from vocprep.backbones import BACKBONES, DEFAULT_BACKBONE, NormalisationName
from vocprep.errors import UsageError
from vocprep.geometry import Geometry
from vocprep.manifests import SplitFlags
from vocprep.recipe import (
    ChosenBackbone,
    EmbeddingDtype,
    Precision,
    Reduction,
    check_precision,
)
from vocprep.storage.places import AnyPlace, LocalPath
from vocprep.validation import NotNegative, Positive, checked, printable
from vocprep.views import ChosenView, Crops, View, ViewChoice, check_crops

T = TypeVar("T")

ShardFormat = Literal["hdf5", "webdataset"]
Decoder = Literal["simplejpeg", "nvjpeg"]
Engine = Literal["local", "ray"]
IfExists = Literal["resume", "overwrite", "fail"]
LoaderMode = Literal["resident", "streaming"]
VerifyLevel = Literal["files", "content", "recompute"]


@checked
class Projection:
    """A random projection of embeddings to fewer numbers."""

    size: Positive
    """D of the stored embeddings."""
    seed: NotNegative
    """Decides the signs of its matrix."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``D:SEED``; UsageError for anything else.

        >>> Projection.parse("256:0")
        Projection(size=256, seed=0)
        """
        size, _, seed = text.partition(":")
        try:
            return cls(size=_digits(size), seed=_digits(seed))
        except (ValueError, UsageError) as error:
            raise UsageError(
                f"project {printable(text)!r}: expected D:SEED, the numbers per patch from 1 and "
                "a seed from 0, e.g. 256:0"
            ) from error


def _projection(value: object) -> object:
    """Accept what a user would write: ``"256:0"``."""
    return Projection.parse(value) if isinstance(value, str) else value


def _are_positive(numbers: int | dict[str, int]) -> int | dict[str, int]:
    bad = [n for n in (numbers.values() if isinstance(numbers, dict) else [numbers]) if n < 1]
    if bad:
        raise ValueError(f"expected 1 or more, found {bad[0]}")
    return numbers


@checked
class BuildChoices:
    """What a user chooses of a recipe; the rest follows from the dataset and the weights."""

    splits: tuple[str, ...] | None = None
    """Splits to build; the dataset's own when None."""
    limit: Positive | None = None
    """At most so many images in all, shared over the splits in proportion, of each the first by
    id: for a quick trial."""
    limit_per_split: Annotated[int | dict[str, int], AfterValidator(_are_positive)] | None = None
    """At most so many images of each split, the first by id; or how many, by split."""
    schema: str | None = None
    """Label space; the dataset's first when None."""
    void_unknown: bool = False
    """Make the class "unknown" void."""
    split_flags: SplitFlags | None = None
    """Which lines of split files with flags are taken; as the manifest says when None."""
    geometry: Geometry = field(default_factory=Geometry)
    backbone: ChosenBackbone = DEFAULT_BACKBONE
    """Frozen network: its name in ``vocprep.backbones``, ``timm:NAME``, ``torchvision:NAME``, or
    ``FILE.py:FUNCTION``, whose code is run."""
    windows: tuple[int, ...] | None = None
    """Sides of the windows around each patch; the backbone's default when None."""
    layers: tuple[str, ...] | None = None
    """Layers that an embedding is taken from; the backbone's last when None. Those of a network
    that is not built in by name or by index."""
    cells: Positive | None = None
    """The most cells per side of a patch that are kept of each layer of a network that is not built
    in; when None 2, or 1 where an embedding would exceed 2,048 numbers."""
    normalisation: NormalisationName | None = None
    """Constants of the input; those that the backbone was trained with when None."""
    precision: Precision | None = None
    """Arithmetic of the backbone; when None ``exact``, which gives the same bits on every machine,
    or ``fp32`` with a backbone that it is not defined for."""
    project: Annotated[Projection | None, BeforeValidator(_projection)] = None
    """Random projection of embeddings to D numbers, ``D:SEED``; with ``exact`` too the same bits on
    every machine."""
    pca: Positive | None = None
    """Keep the first D principal components of embeddings, fitted to those of the train split."""
    embedding_dtype: EmbeddingDtype = "float16"
    views: tuple[ChosenView, ...] = ("identity",)
    """What is held of each image: ``identity``, and beside it ``flip``, its mirror image, and
    ``Crops`` or ``"crops:N,SEED"``, N random crops."""

    @property
    def named_views(self) -> tuple[View, ...]:
        """The views without crops."""
        return tuple(view for view in self.views if not isinstance(view, Crops))

    @property
    def crops(self) -> Crops | None:
        """The crops among the views."""
        return next((view for view in self.views if isinstance(view, Crops)), None)

    @property
    def reduction(self) -> Reduction | None:
        """How embeddings are made smaller; of ``pca`` without the matrix, which a build fits."""
        if self.project is not None:
            return Reduction(kind="projection", size=self.project.size, seed=self.project.seed)
        return None if self.pca is None else Reduction(kind="pca", size=self.pca)

    @model_validator(mode="after")
    def _has_one_reduction(self) -> Self:
        if self.project is not None and self.pca is not None:
            raise UsageError(
                f"pca {self.pca} beside project {self.project.size}:{self.project.seed}: expected "
                "one of the two"
            )
        return self

    @model_validator(mode="after")
    def _has_crops(self) -> Self:
        if len(self.views) - len(self.named_views) > 1:
            listed = ",".join(map(str, self.views))
            raise UsageError(f"views {listed!r}: expected crops once")
        check_crops(self.crops, self.geometry)
        return self

    @model_validator(mode="after")
    def _has_precision(self) -> Self:
        """Refuse a precision that the backbone does not have, before its weights are read."""
        if self.precision is not None:
            check_precision(self.precision, self.backbone)
        return self

    @model_validator(mode="after")
    def _has_cells(self) -> Self:
        if self.cells is not None and self.backbone in BACKBONES:
            raise UsageError(
                f"cells {self.cells}: {self.backbone} has cells of its own; leave --cells out"
            )
        return self


@checked
class Layout:
    """How the records are laid out in files; never changes what they hold."""

    format: ShardFormat = "hdf5"
    samples_per_shard: Positive = 500
    """Images per shard."""


@checked
class MaxFailures:
    """How many samples may be quarantined before a build stops: a count, or a share of all."""

    count: NotNegative = 0
    percent: Annotated[float, Field(ge=0, le=100)] | None = None
    """0 to 100; used in place of ``count`` where it is given."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``N`` or ``P%``; UsageError for anything else.

        >>> MaxFailures.parse("0.5%").allowed(samples=1000)
        5
        """
        try:
            if text.endswith("%"):
                return cls(percent=float(text[:-1]))
            return cls(count=int(text))
        except (ValueError, UsageError) as error:
            raise UsageError(
                f"max_failures {text!r}: expected a number of samples from 0, or 0% to 100%, e.g. "
                "10 or 0.5%"
            ) from error

    def __str__(self) -> str:
        return f"{self.count}" if self.percent is None else f"{self.percent:g}%"

    def allowed(self, samples: int) -> int:
        """Return how many of so many samples may be quarantined."""
        return self.count if self.percent is None else int(samples * self.percent / 100)


@checked
class Part:
    """A part of a build that several processes share: its shards whose number has a remainder."""

    number: NotNegative
    """From 0 to ``count`` − 1."""
    count: Positive

    @model_validator(mode="after")
    def _is_one_of_them(self) -> Self:
        if self.number >= self.count:
            raise UsageError(f"number {self.number}: expected less than count, {self.count}")
        return self

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``I/N``; UsageError for anything else.

        >>> Part.parse("2/3").choose("abcdefgh")
        ['c', 'f']
        """
        number, _, count = text.partition("/")
        try:
            return cls(number=_digits(number), count=_digits(count))
        except (ValueError, UsageError) as error:
            raise UsageError(
                f"part {printable(text)!r}: expected I/N with a number I from 0 to N−1, e.g. 0/4 "
                "to 3/4 for four parts"
            ) from error

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def choose(self, shards: Sequence[T]) -> list[T]:
        """Return the shards of this part, of all in the order of the plan."""
        return list(shards[self.number :: self.count])

    def beside(self, numbers: Iterable[int]) -> list[Self]:
        """Return the parts, of as many as this one is of, that hold the shards of these numbers."""
        chosen = sorted({number % self.count for number in numbers})
        return [type(self)(number=number, count=self.count) for number in chosen]


def _digits(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError("no number")
    return int(text)


def _part(value: object) -> object:
    """Accept what a user would write: ``"0/2"``."""
    return Part.parse(value) if isinstance(value, str) else value


def _max_failures(value: object) -> object:
    """Accept what a user would write: ``10``, ``"10"`` or ``"0.5%"``."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return MaxFailures.parse(str(value)) if is_number or isinstance(value, str) else value


def usable_cores() -> int:
    """Return how many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@checked
class BuildOptions:
    """How a build is run; never changes what it makes."""

    device: str = "auto"
    """``auto`` (all GPUs where there are any), ``cpu``, ``cuda`` (all of them) or ``cuda:N``."""
    workers: Positive = field(default_factory=usable_cores)
    """Threads that read and decode; as many as there are cores by default."""
    processes: Positive = 1
    """Processes of this machine that make shards side by side, among which threads are divided and
    GPUs dealt out; for machines on which one process cannot keep cores or GPUs busy."""
    compiled: bool | None = None
    """Compile the backbone: the same bits, sooner; None decides by the size of the build."""
    decoder: Decoder = "simplejpeg"
    """JPEG decoder: ``nvjpeg`` runs on the GPU and is a numerics class of its own, since its pixels
    differ a little."""
    if_exists: IfExists = "resume"
    """What to do when the output folder holds a dataset version, finished or not: build what is
    missing of it, replace it, or refuse."""
    max_failures: Annotated[MaxFailures, BeforeValidator(_max_failures)] = field(
        default_factory=MaxFailures
    )
    """Samples that may be quarantined before the build stops; quarantine.jsonl lists them."""
    reuse: AnyPlace | None = None
    """A dataset version, in a folder or at a URL, whose embeddings are taken over where image and
    recipe agree."""
    part: Annotated[Part, BeforeValidator(_part)] | None = None
    """Make the shards of this part only, ``I/N``, and publish nothing: processes that share the
    output folder make one each, and a build without a part publishes."""
    engine: Engine = "local"
    """What makes the shards: this process, or the nodes of a Ray cluster."""
    ray_address: str | None = None
    """``HOST:PORT`` of the cluster's head, or ``auto`` for the one that this machine belongs to;
    ``$RAY_ADDRESS`` when None, else a cluster of this machine alone, which ends with the build."""
    task_cpus: Annotated[float, Field(gt=0)] = 1.0
    """CPUs of each task on the cluster, or the share of one: a task reads, and without a GPU
    embeds, in as many threads."""
    task_gpus: Annotated[float, Field(ge=0)] | None = None
    """GPUs of each task, or the share of one; when None 1 if ``device`` is a GPU here, else 0."""

    @model_validator(mode="after")
    def _can_be_shared(self) -> Self:
        if self.part is not None and self.if_exists != "resume":
            verb = "delete" if self.if_exists == "overwrite" else "refuse"
            raise UsageError(
                f"if_exists {self.if_exists!r} beside part {self.part}: expected resume, since "
                f"parts would {verb} each other's shards"
            )
        return self

    @model_validator(mode="after")
    def _has_engine(self) -> Self:
        """Refuse options of an engine that is not used."""
        defaults = {"ray_address": None, "task_cpus": 1.0, "task_gpus": None}
        given = [name for name, default in defaults.items() if getattr(self, name) != default]
        if given and self.engine != "ray":
            raise UsageError(f"{given[0]} {getattr(self, given[0])!r}: only engine 'ray' has it")
        if self.part is not None and self.engine != "local":
            raise UsageError(
                f"part {self.part} beside engine {self.engine!r}: a cluster shares the shards out "
                "itself; give one of the two"
            )
        if self.processes > 1 and self.engine != "local":
            raise UsageError(
                f"processes {self.processes} beside engine {self.engine!r}: a cluster starts its "
                "own on each node, as --task-cpus says; give one of the two"
            )
        for name in ("task_cpus", "task_gpus"):
            count = getattr(self, name) or 0
            if count > 1 and count % 1:
                raise UsageError(f"{name} {count:g}: expected a whole number, or a share of one")
        return self


@checked
class LoaderOptions:
    """How batches are drawn.

    Batches are a function of the dataset version, ``batch_size``, ``shuffle``, ``seed``, ``lanes``,
    ``all_views`` and the epoch. Mode, workers and the number of ranks change nothing of them.

    >>> options = LoaderOptions(batch_size=64, shuffle=True, rank=1, world_size=4)
    >>> LoaderOptions(rank=4, world_size=4)
    Traceback (most recent call last):
    ...
    vocprep.errors.UsageError: rank 4: expected less than world_size, 4
    """

    batch_size: Positive = 64
    """Records per batch, those of all ranks together."""
    mode: LoaderMode = "resident"
    """``resident`` holds the split in memory; ``streaming`` holds a shard per lane at a time."""
    shuffle: bool = False
    """A new order each epoch, decided by ``seed`` and the epoch: of the shards, and of the records
    of each shard. It is the same in either mode."""
    seed: NotNegative = 0
    lanes: Positive = 1
    """Parts of the epoch's order from which records are drawn in turn, at most one per shard. A
    streaming rank reads the shards of its own lanes only, lane l being that of rank l mod
    ``world_size``; with fewer lanes than ranks, several ranks read each lane's shards."""
    workers: NotNegative = 0
    """Threads that read ahead, streaming only. Up to two shards more than threads are in memory
    beside those of the lanes. Processes would be slower: handing a batch over takes longer than
    reading it."""
    label_maps: bool = False
    """Whether batches carry the full label maps, which are decoded when they are taken."""
    all_views: ViewChoice = False
    """Whether all views are drawn, mirrored ones and crops, or the plain ones alone; or which
    kinds beside the plain ones: ``("flip",)`` or ``("crops",)``."""
    rank: NotNegative = 0
    """Which of ``world_size`` processes this is, from 0."""
    world_size: Positive = 1
    """Processes that draw an epoch together. Each draws a part of every batch: together every
    record once, each rank the same number of batches."""

    @model_validator(mode="after")
    def _can_be_drawn(self) -> Self:
        if self.workers and self.mode == "resident":
            raise UsageError("workers read ahead in mode 'streaming' only: leave them out")
        if self.rank >= self.world_size:
            raise UsageError(f"rank {self.rank}: expected less than world_size, {self.world_size}")
        return self

    def for_this_process(self) -> Self:
        """Return the same options with the rank and world size of this process.

        They are those of the process group that ``torch.distributed`` has initialised, else of
        the environment variables ``RANK`` and ``WORLD_SIZE``, which ``torchrun`` sets, else 0 and
        1. UsageError when only one of the variables is set, or they are no rank and world size.
        """
        rank, world_size = _process_group() or _process_environment()
        return replace(self, rank=rank, world_size=world_size)


def _process_group() -> tuple[int, int] | None:
    """Return rank and world size of the initialised process group, if any."""
    # Nothing here loads torch; without its module there is no group.
    distributed: Any = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return distributed.get_rank(), distributed.get_world_size()


def _process_environment() -> tuple[int, int]:
    """Return the rank and world size that ``torchrun`` or a scheduler has set."""
    texts = {name: os.environ.get(name) for name in ("RANK", "WORLD_SIZE")}
    found = ", ".join(f"{name}={text}" for name, text in texts.items() if text is not None)
    if not found:
        return 0, 1
    numbers = [int(text) for text in texts.values() if text is not None and text.isdecimal()]
    if len(numbers) < len(texts) or not 0 <= numbers[0] < numbers[1]:
        raise UsageError(
            "environment variables RANK and WORLD_SIZE: expected a rank from 0 and a larger number "
            f"of ranks, as torchrun sets them, found {printable(found)}; start the program with "
            "torchrun, or give rank and world_size"
        )
    return numbers[0], numbers[1]


@checked
class VerifyOptions:
    """How a data dir or a dataset version is checked."""

    level: VerifyLevel = "files"
    """``files``: the digest of every file; ``content``: also decode everything; ``recompute``: also
    make the records of a dataset version again from the data dir."""
    datasets: tuple[str, ...] = ()
    """Data dir: datasets whose content is checked, all whose folders are there by default. Dataset
    version: the manifest that it was built by, where it is not a shipped one; by default
    ``dataset.toml`` of the data dir."""
    partial: bool = False
    """Data dir: missing files are allowed."""
    lock: LocalPath | None = None
    """Dataset version: lock file that it is compared with, too."""
    data_dir: AnyPlace | None = None
    """``recompute``: where the images and label maps are; the default data dir when None."""
    weights: str | None = None
    """``recompute``: path of the backbone's weights or ``random:SEED``, as for a build."""
    backbone: str | None = None
    """``recompute``: ``FILE.py:FUNCTION`` of a version whose backbone a file of one's own makes;
    its code is run."""
    samples: Positive | None = 32
    """``recompute``: images whose embeddings are made again; all when None."""
    seed: NotNegative = 0
    """``recompute``: decides which images."""
    device: str = "auto"
    """``recompute``: as for a build."""
    workers: Positive = field(default_factory=usable_cores)
    """Threads or processes that read and decode."""


@checked
class TransferOptions:
    """How a dataset version is pushed or pulled."""

    workers: Positive = 8
    """Files in flight; a push holds each of them in memory."""
    if_exists: IfExists = "resume"
    """What to do when something is there already: go on with the same version, replace another
    one, or refuse."""
