"""Principal components of a build (``--pca``): fitted once, before its recipe is complete.

They are fitted to a sample of its pictures and kept beside its shards until the version is
published, which holds them then: an interrupted build, all parts and all nodes use one matrix.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from vocprep.building.output.components import (
    keep_components,
    kept_components,
    published_components,
    refuse_other_builds,
)
from vocprep.building.output.publish import hold_output, refuse_foreign_files
from vocprep.building.pipeline import is_compiled, make_embedders, make_records
from vocprep.building.plan import BuildKey, BuildPlan
from vocprep.building.stages import DecodedImage, DecodedSample, SampleFiles, SampleStages
from vocprep.data_dir.layout import SampleRef
from vocprep.errors import DataError
from vocprep.features.components import (
    Components,
    Fit,
    check_numbers,
    fit_components,
)
from vocprep.features.image import read_image_file
from vocprep.features.reduction import to_float16
from vocprep.files.locking import alone_in
from vocprep.files.writing import canonical_json, sha256_hex
from vocprep.memory import memory_errors
from vocprep.options import BuildOptions
from vocprep.parallel import map_ordered
from vocprep.progress import Progress, advancing, task
from vocprep.recipe import Recipe, Reduction
from vocprep.storage.places import Place

MOST_PICTURES = 1000
"""Pictures that components are fitted to."""
MOST_PATCHES = 49
"""Patches of each of them."""
TRAIN = "train"
ALL = "all"
"""What is said of the split where there is no train split."""


def fit_key(
    key: BuildKey,
    out: Place,
    options: BuildOptions,
    devices: Sequence[torch.device],
    progress: Progress,
) -> BuildKey:
    """Return the key of a build whose recipe names its principal components; others as they are.

    They are those that an interrupted run, the version in ``out`` or that of ``--reuse`` was made
    with, if they were fitted to the same pictures, and else are fitted now. UsageError when
    ``out`` holds a version with others, DataError when a lock file names others.
    """
    plan, reduction = key.plan, key.plan.recipe.reduction
    if reduction is None or reduction.kind != "pca" or plan.components is not None:
        return key
    check_numbers(plan.recipe.backbone_size)
    sample = FitSample.of(plan, options.workers)
    with _held(out, options, progress):
        components = _find(out, options, reduction, sample)
        if components is None:
            refuse_other_builds(key, out, options.if_exists)
            components = _fit(plan, sample, options, devices, progress)
            _check_expected(components, reduction, plan)
            components = keep_components(out, components, options.if_exists)
    return replace(key, plan=plan.with_components(components))


@dataclass(frozen=True, kw_only=True)
class FitSample:
    """The pictures that components are fitted to: those with the least sha256 of their ids."""

    split: str
    samples: Sequence[SampleRef]
    fit_sha256: str
    """Digest of the choices that decide the embeddings, and of the pictures."""

    @classmethod
    def of(cls, plan: BuildPlan, workers: int) -> Self:
        """Choose the pictures of a plan's train split, or of all where there is none."""
        has_train = TRAIN in plan.recipe.splits
        shards = [shard for shard in plan.shards if shard.split == TRAIN or not has_train]
        members = [
            (sha256_hex(name.encode()), shard, place)
            for shard in shards
            for place, name in enumerate(shard.image_ids())
        ]
        chosen = sorted(members, key=lambda member: member[0])[:MOST_PICTURES]
        samples = [shard.samples[place] for _, shard, place in chosen]
        digests = list(map_ordered(_image_digest, samples, workers))
        pictures = [[each.image_id, digest] for each, digest in zip(samples, digests, strict=True)]
        reduction = replace(_pca_of(plan.recipe), matrix_sha256=None)
        choices = replace(plan.recipe, reduction=reduction).embedding_choices
        text = canonical_json({"choices": choices, "pictures": pictures})
        split = TRAIN if has_train else ALL
        return cls(split=split, samples=samples, fit_sha256=sha256_hex(text))


def _pca_of(recipe: Recipe) -> Reduction:
    """Return the reduction of a recipe that has principal components."""
    if recipe.reduction is None or recipe.reduction.kind != "pca":
        raise ValueError("the recipe has no principal components")
    return recipe.reduction


def _image_digest(sample: SampleRef) -> str | None:
    """Return the digest of a picture; None where it cannot be read, and is left out of the fit."""
    try:
        return sha256_hex(read_image_file(sample.image_path))
    except DataError:
        return None


def _fit(
    plan: BuildPlan,
    sample: FitSample,
    options: BuildOptions,
    devices: Sequence[torch.device],
    progress: Progress,
) -> Components:
    """Fit components to the embeddings of a sample of pictures."""
    size, patches, pictures = _pca_of(plan.recipe).size, list[NDArray[np.float16]](), 0
    advice = "choose fewer --layers or --cells, or --project D:SEED, or free memory"
    with memory_errors(advice):
        for embeddings in _embeddings(plan, sample.samples, options, devices, progress):
            count = len(embeddings)
            kept = min(count, MOST_PATCHES)
            patches.append(to_float16(embeddings[np.arange(kept) * count // kept]))
            pictures += 1
        mean, matrix, variance = fit_components(np.concatenate(patches), size)
    fit = Fit(
        fit_sha256=sample.fit_sha256,
        split=sample.split,
        pictures=pictures,
        patches=sum(map(len, patches)),
        variance=variance,
    )
    progress.note(described(fit, size))
    return Components(mean=mean, matrix=matrix, fit=fit)


def described(fit: Fit, size: int) -> str:
    """Return in words what components were fitted to.

    >>> fit = Fit(fit_sha256="0" * 64, split="all", pictures=2, patches=98, variance=0.9312)
    >>> described(fit, 16)
    '--pca 16: fitted to 98 patches of 2 pictures of all splits (there is no train split), 93.1 % \
of whose variance it keeps'
    """
    split = "all splits (there is no train split)" if fit.split == ALL else f"split {fit.split}"
    return (
        f"--pca {size:,}: fitted to {fit.patches:,} patches of {fit.pictures:,} pictures of "
        f"{split}, {100 * fit.variance:.1f} % of whose variance it keeps"
    )


def _embeddings(
    plan: BuildPlan,
    samples: Sequence[SampleRef],
    options: BuildOptions,
    devices: Sequence[torch.device],
    progress: Progress,
) -> Iterator[NDArray[np.float32]]:
    """Yield the embeddings [P, N] of pictures; DataError where none of them can be used."""
    plain = replace(plan.recipe, views=("identity",), crops=None)
    recipe = replace(plain, reduction=None, embedding_dtype="float32")
    stages = _PictureStages(recipe=recipe, label_space=plan.label_space, data_dir=plan.data_dir)
    compiled = is_compiled(recipe, len(samples), options)
    embedders = make_embedders(recipe, plan.weights, devices, compiled=compiled)
    problem = ""
    is_any = False
    with (
        task(progress, "pictures for --pca", len(samples)),
        make_records(samples, stages, embedders, options) as outcomes,
    ):
        for outcome in advancing(outcomes, progress):
            problem = problem or outcome.problem
            for record in outcome.made or ():
                is_any = True
                yield record.embeddings.astype(np.float32, copy=False)
    if not is_any:
        raise DataError(
            f"--pca: none of the {len(samples):,} pictures to fit it to can be used: {problem}; "
            "verify --level content names all of them"
        )


class _PictureStages(SampleStages):
    """The stages of pictures alone: what is wrong with a label map changes no fit."""

    def read(self, sample: SampleRef) -> SampleFiles:
        with self._stage("read", sample, sample.image_path):
            image_bytes = read_image_file(sample.image_path)
        return SampleFiles(
            sample=sample,
            image_bytes=image_bytes,
            label_bytes=b"",
            image_sha256="",
            label_sha256="",
            reused={},
            needs_pixels=True,
        )

    def decode_labels(self, image: DecodedImage) -> DecodedSample:
        void = np.full(image.size, self.label_space.void, dtype=np.uint16)
        return DecodedSample(files=image.files, pixels=image.pixels, label_map=void)


def _check_expected(components: Components, reduction: Reduction, plan: BuildPlan) -> None:
    """Raise DataError where a lock file names other components than were fitted."""
    expected = reduction.matrix_sha256
    if expected not in (None, components.sha256):
        raise DataError(
            f"--pca {reduction.size:,}: the lock file names a matrix of digest {expected[:12]}…, "
            f"and the one fitted here to the pictures in {plan.data_dir} has "
            f"{components.sha256[:12]}…: the pictures or the machine's linear algebra are others; "
            "give a copy of the locked version with --reuse, whose matrix is then used"
        )


@contextmanager
def _held(out: Place, options: BuildOptions, progress: Progress) -> Iterator[None]:
    """Let one process at a time fit for a folder; in object stores the first one's fit counts."""
    with ExitStack() as stack:
        if isinstance(out, Path):
            is_part = options.part is not None
            stack.enter_context(hold_output(out, progress.note, shared=is_part))
            stack.enter_context(alone_in(out))
            refuse_foreign_files(out)
        yield


def _find(
    out: Place, options: BuildOptions, reduction: Reduction, sample: FitSample
) -> Components | None:
    """Return components that fit a build, where there are any."""

    def fits(found: Components | None) -> bool:
        if found is None:
            return False
        if reduction.matrix_sha256 is not None:
            return found.sha256 == reduction.matrix_sha256
        return found.fit.fit_sha256 == sample.fit_sha256

    starts_over = options.if_exists == "overwrite"
    for found in () if starts_over else (kept_components(out), published_components(out)):
        if found is not None and fits(found):
            return found
    reused = None if options.reuse is None else published_components(options.reuse)
    if reused is None or not fits(reused):
        return None
    return keep_components(out, reused, options.if_exists)
