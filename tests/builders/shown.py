"""What the viewer is given in tests: two versions of 24 generated pictures, and two runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from builders.versions import ENGINE, WEIGHTS, first_jpeg
from vocprep.building.local import build_plan
from vocprep.building.plan import plan
from vocprep.heads.runs.options import TrainOptions
from vocprep.heads.training.train import train
from vocprep.options import BuildChoices, Layout, MaxFailures
from vocprep.pages.viewer.options import ViewOptions
from vocprep.synthetic.dataset import sample

MARKUP = "<img src=x onerror=document.title='taken'>"
"""Name of a class and part of the name of a version: it must be shown as it is."""
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Shown:
    """What the viewer is given."""

    data_dir: Path
    manifest: Path
    version: Path
    """Labels of Pascal Context, the class sky under another name; one picture in quarantine."""
    other: Path
    """The same pictures with 59 classes."""
    runs: tuple[Path, Path]

    @property
    def options(self) -> ViewOptions:
        return ViewOptions(data_dir=self.data_dir, dataset=str(self.manifest), device="cpu")


def make_shown(folder: Path) -> Shown:
    """Build versions of pictures, one of which cannot be read, and train heads on the first."""
    sample(folder / "data", images=24)
    first_jpeg(folder / "data").write_bytes(b"no image")
    shown = Shown(
        data_dir=folder / "data",
        manifest=_manifest(folder),
        version=folder / f"v {MARKUP}",
        other=folder / "other",
        runs=(folder / "first", folder / "second"),
    )
    _build(shown, shown.version, "marked.toml")
    _build(shown, shown.other, "context59", reuse=shown.version)
    for epochs, mask_head, run in zip((1, 2), ("slots", "cells"), shown.runs, strict=True):
        options = {"encoder": "none", "mask_head": mask_head, "epochs": epochs, "device": "cpu"}
        train(shown.version, run, TrainOptions(**options))  # type: ignore[arg-type]
    return shown


def _manifest(folder: Path) -> Path:
    labels = (_ROOT / "manifests/labels/context460.toml").read_text()
    (folder / "marked.toml").write_text(labels.replace('"sky"', f'"{MARKUP}"'))
    text = (_ROOT / "manifests/datasets/pascal-context.toml").read_text()
    manifest = folder / "set.toml"
    manifest.write_text(text.replace('"context460"', '"marked.toml"'))
    return manifest


def _build(shown: Shown, out: Path, schema: str, reuse: Path | None = None) -> None:
    choices, layout = BuildChoices(schema=schema), Layout(samples_per_shard=5)
    made = plan(
        str(shown.manifest),
        data_dir=shown.data_dir,
        weights=WEIGHTS,
        choices=choices,
        layout=layout,
    )
    build_plan(made, out, replace(ENGINE, max_failures=MaxFailures(count=1), reuse=reuse))
