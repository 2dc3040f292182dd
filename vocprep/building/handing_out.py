"""What other processes need to make shards of a build: the nodes of a cluster, or those of here."""

from __future__ import annotations

from pathlib import Path

from vocprep.building.orders import WorkerSetup
from vocprep.building.output.store_output import AnyOutput
from vocprep.building.plan import BuildKey, BuildPlan
from vocprep.features.libraries.own_file import named_file
from vocprep.features.weights import WeightsOrigin
from vocprep.storage.places import Place


def worker_setup(key: BuildKey, output: AnyOutput, reuse: Place | None) -> WorkerSetup:
    """Return where processes find what a build needs, under the paths of this machine.

    ``reuse`` is the version that the user named for it.
    """
    plan, earlier = key.plan, output.earlier
    is_fitting = earlier is not None and earlier.index.numerics_class == key.numerics_class
    versions = (reuse, output.path if is_fitting else None)
    return WorkerSetup(
        data_dir=plan.data_dir.absolute(),
        out=_absolute(output.path),
        weights=_weights(plan),
        backbone=named_file(plan.recipe.backbone, plan.recipe.network),
        reuse=tuple(_absolute(place) for place in versions if place is not None),
    )


def _absolute(place: Place) -> Place:
    """Return a place by a name that does not depend on the working folder."""
    return place.absolute() if isinstance(place, Path) else place


def _weights(plan: BuildPlan) -> str | None:
    """Return where processes find the weights of a plan: a path, or ``random:SEED``."""
    digest = plan.recipe.weights_sha256
    label = plan.weights_label
    origin = plan.weights_origin or WeightsOrigin.of_version(plan.data_dir, label, digest)
    return None if origin is None else origin.weights
