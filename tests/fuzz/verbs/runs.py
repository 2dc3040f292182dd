"""Verbs of runs, weights and manifests: open, score, predict, train, load."""

from __future__ import annotations

from pathlib import Path

import vocprep
from fuzz import world
from fuzz.verbs.job import Job, command, require_whole
from vocprep.backbones import DEFAULT_BACKBONE
from vocprep.cli.evaluate import evaluate
from vocprep.cli.predict import predict
from vocprep.features.weights import load_fitting_weights
from vocprep.heads.runs.presets import load_options
from vocprep.labels.label_space import load_label_space
from vocprep.manifests import load_dataset, load_source


def load_manifests(job: Job) -> bool:
    """Read every manifest that was damaged, by the reader of its kind."""
    for name in job.damaged:
        if name == "space.toml":
            load_label_space(name, void_unknown=job.draw.random() < 0.1)
        elif name == "tiny.toml":
            load_source(name)
        elif name in ("mine.toml", "run/options.toml"):
            load_options(name, ["epochs=3"])
        else:
            load_dataset(name)
    return True


def load_weights(job: Job) -> bool:
    """Read the backbone's weights."""
    for name in job.damaged:
        load_fitting_weights(name, Path("data"), DEFAULT_BACKBONE)
    return True


def load_run(job: Job) -> bool:
    """Open a finished run."""
    vocprep.load_run("run")
    return True


def score(job: Job) -> bool:
    """Score a run on a version."""
    flags = ["--data-dir", "data", "--dataset", "mat.toml"] * (job.draw.random() < 0.3)
    flags += ["--json"] * job.draw.randrange(2) + ["--classes"] * job.draw.randrange(2)
    return command(evaluate, "run", "h5", "--device", "cpu", *flags)


def label(job: Job) -> bool:
    """Label pictures with a run."""
    damaged = [name for name in job.damaged if name.startswith("pictures/")]
    pictures = damaged or ["pictures/base.jpg"]
    flags = ["--device", "cpu", *["--json"] * job.draw.randrange(2)]
    done = command(predict, "run", *pictures, "--out", "predictions", *flags)
    require_whole(job, [".png"], [world.DAMAGED])
    return done


def train_on(job: Job) -> bool:
    """Go on with an interrupted training."""
    world.train_tiny("h5", "begun")
    return True


def train_new(job: Job) -> bool:
    """Train on a version."""
    world.train_tiny("h5", "trained")
    return True
