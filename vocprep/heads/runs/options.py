"""Options of training and of evaluation.

Nothing here loads torch, so that the command line can read defaults and presets at once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from vocprep.errors import UsageError
from vocprep.heads.model.config import (
    CellContexts,
    CellsPerSide,
    ClassLoss,
    Depth,
    EncoderName,
    Feedforward,
    HeadsConfig,
    LabelSmoothing,
    MaskDropout,
    MaskHeadName,
    MaskLoss,
    PriorPower,
    SlotRule,
    Tta,
)
from vocprep.options import LoaderMode
from vocprep.storage.places import LocalPath
from vocprep.validation import NotNegative, Positive, WholeNumber, checked
from vocprep.views import ViewChoice, ViewKind

StepPrecision = Literal["auto", "fp32", "bf16"]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]


DEFAULT_PRESET = "cells"
"""The preset that a training takes when none is named: the best for plain embeddings."""


@checked
class TrainOptions:
    """How the heads are trained. All but ``EXECUTION`` decide the weights: a preset sets those.

    Without arguments it is preset ``default``.

    >>> TrainOptions(encoder="none", epochs=30).batch_size
    32
    >>> TrainOptions(epochs=0)
    Traceback (most recent call last):
    ...
    vocprep.errors.UsageError: epochs 0: expected 1 or more
    """

    preset: str = "default"
    """Name of the preset that the values started from; for people."""
    encoder: EncoderName = HeadsConfig.encoder
    """``transformer``, ``spikformer``, or ``none``: every patch by itself."""
    position: bool = HeadsConfig.position
    """Add the 2-D sine position code to the tokens; off is the seed's literal model."""
    standardise: bool = True
    """Scale every component of the embeddings to mean 0 and deviation 1 over the train split."""
    class_loss: ClassLoss = HeadsConfig.class_loss
    """``soft_cross_entropy`` over area shares, or ``multi_hot``: binary cross-entropy per class."""
    label_smoothing: LabelSmoothing = HeadsConfig.label_smoothing
    """Share of the targets of patches and cells that is spread over all classes evenly, e.g. 0.1,
    with ``soft_cross_entropy``; masks are not smoothed."""
    slots: SlotRule = "area"
    """Target of mask k of ``mask_head`` ``slots``: ``predicted``: the pixels of the class that
    ``cat`` ranks k-th; ``area``: those of the patch's k-th largest class (teacher-forced)."""
    depth: Depth = 2
    """Layers of the transformer."""
    feedforward: Feedforward = 512
    """Width of the hidden layer in each of them."""
    norm_first: bool = True
    """Normalise what enters a sublayer of the transformer, not what leaves it."""
    mask_head: MaskHeadName = HeadsConfig.mask_head
    """``slots``: four masks per patch, of its four classes; ``cells``: the classes of cells inside
    each patch, from their part of the embedding, interpolated to pixels; ``none``: the classes of
    patches, interpolated."""
    mask_loss: MaskLoss = "mixed"
    """Patches whose pixels teach the masks of ``slots``: ``all``, or ``mixed``: those of two
    classes or more. The others teach a mask whether a class is there, not where; pixels are then
    decoded by class probability × mask."""
    mask_dropout: MaskDropout = 0.0
    """Dropout rate in the head of ``slots``, which ``dropout_factor`` multiplies."""
    cells: Annotated[CellsPerSide, WholeNumber] | None = None
    """Cells per side of a patch for ``mask_head`` ``cells``; when None, as many as the finest layer
    of the embedding has, at most 4."""
    cell_context: CellContexts = HeadsConfig.cell_context
    """How often each cell is mixed with the eight around it; of ``mask_head`` ``cells`` with an
    encoder."""
    input_layer: bool = True
    """Put a linear layer in front of the encoder where embeddings have its 256 numbers, too."""
    input_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Rate of dropout of the standardised embeddings; ``dropout_factor`` does not change it."""
    flip: bool = True
    """Train on mirrored views too, where the shards hold them."""
    crops: bool | None = None
    """Train on crops too, where the shards hold them; as ``flip`` when None."""
    dropout_factor: Annotated[float, Field(ge=0, lt=2)] = 1.0
    """Multiplies the dropout rates (0.1 in the transformer and in the head of cells,
    ``mask_dropout`` in that of slots); 0 is none."""
    epochs: Positive = 12
    """Passes over the train split."""
    batch_size: Positive = 32
    """Images per step, of all processes together."""
    lanes: Positive | None = None
    """Parts of an epoch's order that batches are drawn from in turn, as in ``LoaderOptions``; each
    streaming process reads the shards of its own. When None, as many as the run has that is
    resumed, else 1 in mode ``resident``; in ``streaming`` 8, but at most one per shard."""
    lr: PositiveFloat = 5e-4
    """Peak learning rate of AdamW, reached after the warm-up; then a cosine down to 0."""
    weight_decay: NotNegativeFloat = 0.05
    """Applied to matrices, not to biases and norms."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of all steps in which the learning rate rises from 0, 0 ≤ warmup < 1."""
    clip: PositiveFloat = 1.0
    """Maximum norm of all gradients together."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share that the exponential mean of the weights keeps in each step, e.g. 0.99. The mean is
    what is validated and saved. 0: the weights as trained, without a mean."""
    precision: StepPrecision = "auto"
    """Of the matrix products: ``bf16`` (autocast), ``fp32``, or ``auto``: bf16 where the device
    computes it faster."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Determines the initial weights, the order of the images and the dropout."""
    train_split: str = "train"
    """Split to train on; where a version has no ``train`` and one split only, that one."""
    val_split: str = "val"
    """Split to validate on; the empty name trains without validation, and so does ``val`` where a
    version has no such split."""
    validate_every: Positive = 5
    """Epochs between two validations, after which the run's weights are saved; the last epoch is
    one of them. Without a split to validate on they are saved all the same."""
    device: str = "auto"
    """``auto`` (the GPU where there is one), ``cpu``, ``cuda`` or ``cuda:N``."""
    mode: LoaderMode = "resident"
    """``resident`` keeps a split on the device; ``streaming`` reads it again each epoch. With the
    same ``lanes`` the batches are the same."""
    compiled: bool = False
    """Compile the step: a minute or more before the first one, and rounding of its own."""
    checkpoint_every: NotNegativeFloat = 20.0
    """Seconds at least between two checkpoints, which are taken at the end of epochs."""
    resume: bool = False
    """Continue from the last complete checkpoint in the folder, or begin where there is none."""
    overwrite: bool = False
    """Replace the run that the folder already holds."""
    mlflow: str | None = None
    """URI of the MLflow tracking store that gets the metrics too, which needs the extra ``mlflow``;
    the empty one is MLflow's own choice: ``$MLFLOW_TRACKING_URI``, or a file ``mlflow.db`` in the
    working directory."""

    @property
    def drawn_views(self) -> ViewChoice:
        """The views that are trained on, as ``LoaderOptions.all_views`` names them."""
        has_crops = self.flip if self.crops is None else self.crops
        if self.flip and has_crops:
            return True
        kinds: dict[ViewKind, bool] = {"flip": self.flip, "crops": has_crops}
        return tuple(kind for kind, is_drawn in kinds.items() if is_drawn)

    def validates(self, epoch: int) -> bool:
        """Return whether the heads are saved after an epoch (from 1), and scored if they can be."""
        return epoch % self.validate_every == 0 or epoch == self.epochs

    @model_validator(mode="after")
    def _cells_of_a_head_of_cells(self) -> Self:
        if self.cells is not None and self.mask_head != "cells":
            raise UsageError(
                f"cells {self.cells}: a choice of mask_head cells, found mask_head "
                f"{self.mask_head}; set mask_head to cells or leave cells out"
            )
        return self

    @model_validator(mode="after")
    def _resume_or_overwrite(self) -> Self:
        if self.resume and self.overwrite:
            raise UsageError("resume and overwrite: expected one of them at most; leave one out")
        return self


STREAMING_LANES = 8
"""Lanes of a streamed train split: enough for the processes of one machine with eight GPUs."""


EXECUTION = ("device", "mode", "compiled", "checkpoint_every", "resume", "overwrite", "mlflow")
"""Fields of TrainOptions that determine where and how a training runs. They change the weights by
rounding at most: another device rounds differently, and so does a compiled step. The mode decides
what ``lanes`` are where they are not given."""


OLDER: dict[str, object] = {
    **{"depth": 6, "feedforward": 2048, "norm_first": False},
    **{"input_layer": False, "input_dropout": 0.0},
    **{"mask_head": "slots", "mask_loss": "all", "mask_dropout": 0.5},
}
"""What the options of runs up to format 6 mean where they do not have these fields yet."""


RENAMED = {"category_loss": "class_loss", "categories": "outputs", "recipe": "preset"}
"""Fields as runs and options files up to format 3 name them, and what they are called now."""


@checked
class EvaluateOptions:
    """How a split is run through trained heads, and what is scored of what they say."""

    batch_size: Positive = 32
    """Images per step."""
    device: str = "auto"
    """``auto`` (the GPU where there is one), ``cpu``, ``cuda`` or ``cuda:N``."""
    mode: LoaderMode = "streaming"
    """As for training; every image is needed once, so streaming costs nothing."""
    worst: NotNegative = 5
    """How many of the images with the lowest pixel accuracy are listed."""
    pictures: NotNegative = 0
    """How many of the worst, of the middle and of the best images are drawn, each with its truth,
    prediction, error and confidence; over the photographs of ``data_dir`` where it is given."""
    data_dir: LocalPath | None = None
    """Data dir of the build: its label maps say what the geometry leaves out, so that whole images
    are scored too."""
    dataset: str | None = None
    """Name or TOML file of the dataset in ``data_dir``; that of the recipe when None."""
    prior_power: PriorPower = 0.0
    """Divide each class's probability by its share of the pixels trained on to this power, 0 to
    1."""
    tta: Tta = "none"
    """``flip``: score the mean of each image's plain and mirrored view, which the shards hold."""

    @model_validator(mode="after")
    def _dataset_of_a_data_dir(self) -> Self:
        if self.dataset is not None and self.data_dir is None:
            raise UsageError("dataset: names what data_dir holds; give --data-dir too")
        return self


def fit_splits(options: TrainOptions, splits: Collection[str]) -> TrainOptions:
    """Return the options for a version with these splits, which may lack ``train`` or ``val``.

    A version without ``val`` is trained on without validation; one split of another name, but
    ``val``, is what there is to train on. Splits that were named otherwise stay as they are.

    >>> found = fit_splits(TrainOptions(), ["all"])
    >>> found.train_split, found.val_split
    ('all', '')
    """
    train, val = options.train_split, options.val_split
    lacks_val = TrainOptions.val_split not in splits
    if train == TrainOptions.train_split not in splits and len(splits) == 1 and lacks_val:
        (train,) = splits
    if val == TrainOptions.val_split and lacks_val:
        val = ""
    return replace(options, train_split=train, val_split=val)


def require_split(splits: Sequence[str], name: str, option: str) -> None:
    """Raise UsageError when a dataset with these splits has none of that name."""
    if name not in splits:
        raise UsageError(
            f"{option} {name!r}: expected one of {', '.join(splits)}, the dataset's splits; name "
            "one of them or build this one"
        )
