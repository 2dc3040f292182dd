"""Pictures to build from: real ones where there are any, else generated; repeated to any number."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from vocprep.data_dir.layout import SampleRef, list_samples
from vocprep.manifests import DatasetManifest, load_dataset
from vocprep.storage.places import local_path
from vocprep.synthetic.dataset import sample

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = "voc21"
GENERATED = 240
"""Generated pictures are made once and then repeated: they take longer to draw than to embed."""


@dataclass(frozen=True)
class Photographs:
    """A tree of pictures in its official layout, with train and val splits."""

    data_dir: Path
    dataset: DatasetManifest
    kind: str
    """What they are, in words."""


@dataclass(frozen=True)
class Pictures:
    """A tree to build from, in one split named train."""

    manifest: Path
    """The dataset's TOML file, as ``vocprep build-shards`` takes it."""
    data_dir: Path
    weights: str
    title: str
    """What they are, in words."""

    @property
    def dataset(self) -> DatasetManifest:
        """The dataset, as the library takes it."""
        return load_dataset(str(self.manifest))

    def samples(self) -> list[SampleRef]:
        """Return all pictures with their label maps, in order of their ids."""
        return list_samples(self.data_dir, self.dataset, ["train"])


def shared_data() -> Path:
    """Return where real pictures, label maps and weights are, on a machine that has them."""
    return Path(os.environ.get("VOCPREP_SHARED_DATA") or ROOT.parent / "shared" / "data")


def make_pictures(count: int, folder: Path) -> Pictures:
    """Lay out ``count`` pictures below ``folder`` as links, under ids of their own.

    A repeated picture costs a build what the first one did: nothing is remembered between two. Its
    file is in the page cache, as it would be after a download too.
    """
    originals, kind = _originals(count, folder)
    places = [folder / name for name in ("pictures", "masks", "splits")]
    for place in places:
        place.mkdir(parents=True)
    suffix = originals[0].label_path.suffix
    ids = [f"p{number:06d}" for number in range(count)]
    for image_id, original in zip(ids, cycle(originals), strict=False):
        (places[0] / f"{image_id}.jpg").symlink_to(local_path(original.image_path).resolve())
        (places[1] / f"{image_id}{suffix}").symlink_to(local_path(original.label_path).resolve())
    (places[2] / "train.txt").write_text("".join(f"{image_id}\n" for image_id in ids))
    manifest = folder / "repeated.toml"
    manifest.write_text(
        'title = "Pictures repeated"\nimages = "pictures"\nlabels = "masks"\n'
        f'label_kind = "{suffix[1:]}"\nsplit_files = "splits"\nsplits = ["train"]\n'
        f'schemas = ["{SCHEMA}"]\n'
    )
    distinct = min(count, len(originals))
    title = f"{count:,} {kind}" + ("" if distinct == count else f", {distinct:,} of them distinct")
    return Pictures(manifest, folder, weights_at_hand(), title)


def find_photographs(folder: Path, generated: int) -> Photographs:
    """Return the real pictures that there are, else as many generated ones below ``folder``."""
    real = shared_data() / "voc2012-real"
    if real.is_dir():
        return Photographs(real, load_dataset("voc2012"), "real VOC 2012 pictures")
    made = folder / "generated"
    if not made.is_dir():
        sample(made, images=generated)
    return Photographs(made, load_dataset("voc2010"), "generated pictures")


def weights_at_hand(name: str = "cifar100_resnet32.pth") -> str:
    """Return trained weights where they are at hand, else untrained ones: as much work."""
    official = shared_data() / "weights" / name
    return str(official) if official.is_file() else "random:0"


def _originals(count: int, folder: Path) -> tuple[list[SampleRef], str]:
    """Return the pictures that there are to repeat, and what they are."""
    found = find_photographs(folder, max(2, min(count, GENERATED)))
    # Real ones are many; of the generated ones every split is needed.
    splits = ["train"] if found.dataset.name == "voc2012" else ["train", "val"]
    return list_samples(found.data_dir, found.dataset, splits), found.kind
