"""Options of training and of evaluation.

Nothing here loads torch, so that the command line can read defaults and presets at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from vocprep.errors import UsageError
from vocprep.heads.model.config import ClassLoss, EncoderName, HeadsConfig, SlotRule
from vocprep.options import LoaderMode

StepPrecision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """How the heads are trained. All but ``EXECUTION`` decide the weights: a preset sets those."""

    preset: str = "default"
    """Name of the preset that the values started from; for people."""
    encoder: EncoderName = HeadsConfig.encoder
    """``transformer``, ``spikformer``, or ``none``, where every patch is on its own."""
    position: bool = HeadsConfig.position
    """Add the 2-D sine position code; off is the seed's literal model."""
    standardise: bool = True
    """Bring every component of the embeddings to mean 0 and deviation 1 over the train split."""
    class_loss: ClassLoss = HeadsConfig.class_loss
    """``soft_cross_entropy`` over area shares, or ``multi_hot``: binary cross-entropy a label."""
    slots: SlotRule = HeadsConfig.slots
    """Whose pixels mask k learns: ``predicted``: those of the label that ``cat`` ranks k-th;
    ``area``: those of the patch's k-th largest label (teacher-forced)."""
    flip: bool = True
    """Learn from mirrored views too, where the shards hold them."""
    dropout_factor: float = 1.0
    """Times the dropout rates (0.1 in the transformer, 0.5 in the mask head); 0 is none."""
    epochs: int = 60
    """Passes over the train split."""
    batch_size: int = 128
    """Images a step, of all processes together."""
    lr: float = 3e-4
    """Peak learning rate of AdamW, reached after the warm-up; a cosine takes it to 0."""
    weight_decay: float = 0.05
    """Applied to matrices; biases and norms are left alone."""
    warmup: float = 0.05
    """Share of all steps in which the learning rate rises from 0, 0 ≤ warmup < 1."""
    clip: float = 1.0
    """Largest norm of all gradients together."""
    precision: StepPrecision = "auto"
    """Of the matrix products: ``bf16`` (autocast), ``fp32``, or ``auto``: bf16 where the device
    computes it faster."""
    seed: int = 0
    """Decides the first weights, the order of the images and the dropout."""
    train_split: str = "train"
    """Split to learn from."""
    val_split: str = "val"
    """Split to score while training, never learnt from; the empty name trains without."""
    validate_every: int = 5
    """Epochs between two scores; the last epoch is always scored."""
    device: str = "auto"
    """``auto`` (the GPU where there is one), ``cpu``, ``cuda`` or ``cuda:N``."""
    mode: LoaderMode = "resident"
    """``resident`` keeps a split on the device; ``streaming`` reads it again each epoch. The
    batches are the same."""
    compiled: bool = False
    """Compile the step: a minute or more before the first one, and rounding of its own."""
    checkpoint_every: float = 20.0
    """Seconds at least between two checkpoints, which are taken at the end of epochs."""
    resume: bool = False
    """Go on from the last complete checkpoint in the folder, or begin where there is none."""
    overwrite: bool = False
    """Replace the run that the folder already holds."""

    def __post_init__(self) -> None:
        """Refuse values that no training can follow."""
        _at_least_one(self, "epochs", "batch_size", "validate_every")
        _one_of("mode", self.mode, LoaderMode)
        _one_of("encoder", self.encoder, EncoderName)
        _one_of("class_loss", self.class_loss, ClassLoss)
        _one_of("slots", self.slots, SlotRule)
        _one_of("precision", self.precision, StepPrecision)
        for name in ("lr", "clip"):
            _in_range(self, name, getattr(self, name) > 0, "a number above 0")
        for name in ("weight_decay", "checkpoint_every"):
            _in_range(self, name, getattr(self, name) >= 0, "0 or more")
        _in_range(self, "warmup", 0 <= self.warmup < 1, "a share from 0 to below 1")
        _in_range(self, "dropout_factor", 0 <= self.dropout_factor < 2, "0 to below 2")
        _in_range(self, "seed", 0 <= self.seed < 2**63, "0 to 2^63 - 1")
        if self.resume and self.overwrite:
            raise UsageError("resume and overwrite: expected one of them at most; leave one out")


EXECUTION = ("device", "mode", "compiled", "checkpoint_every", "resume", "overwrite")
"""Fields of TrainOptions that decide where and how a training runs. What it learns depends on them
by rounding at most: another device rounds in another way, and so does a compiled step."""


RENAMED = {"category_loss": "class_loss", "categories": "outputs", "recipe": "preset"}
"""Fields as runs and options files up to format 3 name them, and what they are called now."""


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """How a split is run through trained heads; none of it changes the scores' meaning."""

    batch_size: int = 32
    """Images a step."""
    device: str = "auto"
    """``auto`` (the GPU where there is one), ``cpu``, ``cuda`` or ``cuda:N``."""
    mode: LoaderMode = "streaming"
    """As for training; every image is needed once, so streaming costs nothing."""
    worst: int = 5
    """How many of the images with the lowest pixel accuracy are listed."""
    data_dir: Path | None = None
    """Data dir of the build: its label maps say what the geometry leaves out, so that whole images
    are scored too."""
    dataset: str | None = None
    """Name or TOML file of the dataset in ``data_dir``; that of the recipe when None."""

    def __post_init__(self) -> None:
        """Refuse values that no evaluation can follow."""
        _at_least_one(self, "batch_size")
        _in_range(self, "worst", self.worst >= 0, "0 or more")
        if self.dataset is not None and self.data_dir is None:
            raise UsageError("dataset: says what data_dir holds; give --data-dir too")
        _one_of("mode", self.mode, LoaderMode)


def require_split(splits: Sequence[str], name: str, option: str) -> None:
    """Raise UsageError when a dataset with these splits has none of that name."""
    if name not in splits:
        raise UsageError(
            f"{option} {name!r}: expected one of {', '.join(splits)}, the dataset's splits; name "
            "one of them or build this one"
        )


def _at_least_one(options: Any, *names: str) -> None:
    for name in names:
        _in_range(options, name, getattr(options, name) >= 1, "at least 1")


def _in_range(options: Any, name: str, holds: bool, expected: str) -> None:
    value = getattr(options, name)
    if not holds or not math.isfinite(value):
        raise UsageError(f"{name}: expected {expected}, found {value}")


def _one_of(name: str, value: str, allowed: Any) -> None:
    if value not in get_args(allowed):
        raise UsageError(f"{name} {value!r}: expected one of {', '.join(get_args(allowed))}")
