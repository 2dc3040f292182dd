"""The notebook utility: preprocessing, plotting, a Pascal Context dataset, the whole TFDet.

A thin layer over the other rooms, with the names of the project's first notebook. It is meant for
exploration; fast training uses shards.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MethodType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from vocprep.backbones import Normalisation
from vocprep.drawing.axes import plot_label_map, plot_patches
from vocprep.drawing.palette import ClassStyle
from vocprep.errors import DataDirError, LabelDecodeError
from vocprep.features.image import decode_jpeg, read_image_file
from vocprep.features.networks import CifarResNet, cifar100_resnet32
from vocprep.files.names import names_in
from vocprep.geometry import PATCH, Geometry
from vocprep.heads.model.tfdet import TFDetHeads, to_label_map, to_segment
from vocprep.labels.decode import decode_label_map, read_label_file
from vocprep.labels.label_list import read_label_list
from vocprep.labels.targets import make_targets, unpack_states
from vocprep.placement import join_patches, place_image, place_labels
from vocprep.storage.places import local_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["PascalSet", "TFDet", "Voc", "cifar100_resnet32", "cifar_100_names"]

# The fine labels of CIFAR-100 in the order of its class numbers (Krizhevsky, 2009).
cifar_100_names = tuple(
    """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
    butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab
    crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard
    lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom
    oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
    possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake
    spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor
    train trout tulip turtle wardrobe whale willow_tree wolf woman worm""".split()  # noqa: SIM905  # a hundred words read better without quotes
)

_NORMALISATION = Normalisation()
_VOID = 0
_GRID = (7, 7)
"""Patches of a preprocessed picture."""


class Voc:
    """Small helpers of the notebook."""

    @staticmethod
    def preprocess(image: Image.Image) -> Tensor:
        """Return an image as float32 [3, 224, 224]: geometry ``crop``, CIFAR-100 normalisation."""
        return _normalise(place_image(_rgb(image), Geometry()))

    @staticmethod
    def cfar_preprocess(image: Image.Image) -> Tensor:
        """Return an image as one input of the backbone, float32 [3, 32, 32]: shorter side to 32,
        centre crop, CIFAR-100 normalisation.
        """
        width, height = image.size
        scale = PATCH / min(width, height)
        size = max(PATCH, int(width * scale)), max(PATCH, int(height * scale))
        small = image.convert("RGB").resize(size, Image.Resampling.BILINEAR)
        left, top = (size[0] - PATCH) // 2, (size[1] - PATCH) // 2
        return _normalise(np.asarray(small.crop((left, top, left + PATCH, top + PATCH))))

    @staticmethod
    def plot_tensor(image: Tensor, ax: Axes | None = None) -> Axes:
        """Plot a preprocessed image [3, H, W] in its original colours; return the axes."""
        axes = _axes(ax)
        axes.imshow(_unnormalise(image))
        axes.set_axis_off()
        return axes

    @staticmethod
    def plot_label_map(
        label_map: Tensor,
        names: Mapping[int, str],
        image: Tensor | None = None,
        ax: Axes | None = None,
    ) -> Axes:
        """Plot a label map [H, W] of a ``PascalSet`` with the names of its classes.

        ``names`` are those of the set. Over a preprocessed ``image`` [3, H, W] where it is given;
        0, which is no label, is hatched. Returns the axes.
        """
        axes = _axes(ax)
        pixels = None if image is None else (255 * _unnormalise(image)).round().astype(np.uint8)
        plot_label_map(axes, _ids(label_map), _style(names), pixels)
        return axes

    @staticmethod
    def plot_patches(label_map: Tensor, names: Mapping[int, str], ax: Axes | None = None) -> Axes:
        """Plot a label map [32·ny, 32·nx] cut into its patches, with the slots of each.

        The four largest classes of a patch are its slots, numbered from 1; pixels of further
        classes, which no prediction can give, are black. Returns the axes.
        """
        axes, ids = _axes(ax), _ids(label_map)
        grid = ids.shape[0] // PATCH, ids.shape[1] // PATCH
        states = unpack_states(make_targets(ids, _VOID).slot_planes)
        plot_patches(axes, ids, states.reshape(*grid, PATCH, PATCH), _style(names))
        return axes

    @staticmethod
    def plot_prediction(
        y: Tensor,
        z: Tensor,
        names: Mapping[int, str],
        image: Tensor | None = None,
        ax: Axes | None = None,
    ) -> Axes:
        """Plot what ``TFDet`` makes of one picture of 7×7 patches: logits [49, C], masks [49, 1024,
        4]; as ``plot_label_map`` does. Returns the axes.
        """
        patches = to_label_map(y.detach(), z.detach()).reshape(-1, PATCH, PATCH).cpu().numpy()
        label_map = torch.from_numpy(join_patches(patches, _GRID))
        return Voc.plot_label_map(label_map, names, image, ax)

    @staticmethod
    def freeze(module: nn.Module) -> nn.Module:
        """Freeze a module and return it: no gradients, and eval mode even after ``train()`` of a
        parent, since batch norms would change in train mode without gradients too.
        """
        module.requires_grad_(False)
        module.eval()
        module.train = MethodType(_stay_in_eval, module)  # type: ignore[method-assign]  # the point
        return module

    @staticmethod
    def num_params(module: nn.Module) -> int:
        """Return the number of trainable parameters of a module."""
        return sum(p.numel() for p in module.parameters() if p.requires_grad)


class TFDet(nn.Module):
    """The whole detector, from normalised patches to class logits and slot masks.

    ``fe`` is the frozen trunk, ``ff`` its pool; ``te`` the encoder, ``cat`` and ``reg`` the heads.
    The last three are those of ``heads``, which ``vocprep train`` trains on shards; here the
    backbone runs in every step.
    """

    def __init__(
        self, categories: int = 460, res32: CifarResNet | None = None, position: bool = False
    ) -> None:
        super().__init__()
        network = cifar100_resnet32() if res32 is None else res32
        self.fe = Voc.freeze(copy.deepcopy(nn.Sequential(*list(network.children())[:-2])))
        self.ff = Voc.freeze(nn.AdaptiveAvgPool2d(output_size=(2, 2)))
        self.heads = TFDetHeads(categories, position=position)

    @property
    def te(self) -> nn.Module:
        """The encoder."""
        return self.heads.te

    @property
    def cat(self) -> nn.Module:
        """The class head."""
        return self.heads.cat

    @property
    def reg(self) -> nn.Module:
        """The mask head."""
        return self.heads.get_submodule("reg")

    def embed(self, patches: Tensor) -> Tensor:
        """Return embeddings [..., P, 256] of normalised patches [..., P, 3, 32, 32]."""
        flat = torch.flatten(self.ff(self.fe(patches.reshape(-1, *patches.shape[-3:]))), 1)
        return flat.reshape(*patches.shape[:-3], flat.shape[-1])

    def forward(self, patches: Tensor, grids: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return class logits [..., P, C] and slot masks [..., P, 1024, 4] in 0..1.

        ``patches`` [P, 3, 32, 32] of one image, or [B, P, 3, 32, 32]; ``grids`` int64 [B, 2] of
        (ny, nx), needed with ``position`` only.
        """
        embeddings = self.embed(patches)
        if patches.ndim == 4:
            y, z = self.heads.probabilities(embeddings.unsqueeze(0), None, grids)
            return y.squeeze(0), z.squeeze(0)
        return self.heads.probabilities(embeddings, None, grids)

    def toSegment(self, y: Tensor, z: Tensor) -> Tensor:
        """Return the dense segmentation [P, 1024, C] of logits [P, C] and masks [P, 1024, 4]."""
        return to_segment(y, z)


class PascalSet(Dataset[tuple[Tensor, Tensor]]):
    """Images of one folder with the Pascal Context label maps of another.

    Item i is an image float32 [3, 224, 224] (``Voc.preprocess``) and its label map int64
    [224, 224] of ids 0..459. Images without a label map are counted and left out.
    """

    def __init__(self, image_folder: str | Path, mat_folder: str | Path, label_file: str | Path):
        images_at, labels_at = local_path(image_folder), local_path(mat_folder)
        self.names = {_VOID: "empty", **read_label_list(local_path(label_file))}
        images, segmentations = _by_stem(images_at, ".jpg"), _by_stem(labels_at, ".mat")
        self.image_ids = sorted(images.keys() & segmentations.keys())
        self._files = [(images[key], segmentations[key]) for key in self.image_ids]
        print(f"images: {len(images)}")
        print(f"segmentations: {len(segmentations)}")
        print(f"images without segmentation: {len(images) - len(self.image_ids)}")

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image_path, label_path = self._files[index]
        image = decode_jpeg(read_image_file(image_path), str(image_path))
        label_map = decode_label_map(read_label_file(label_path), label_path)
        if label_map.shape != image.shape[:2]:
            raise LabelDecodeError(
                f"{label_path}: label map of shape {label_map.shape}: expected "
                f"{image.shape[:2]} as its image {image_path}"
            )
        placed = place_labels(label_map, Geometry(), _VOID)
        return (
            _normalise(place_image(image, Geometry())),
            torch.from_numpy(placed.astype(np.int64)),
        )

    def getNames(self, label_map: Tensor) -> list[str]:
        """Return the names of the classes in a label map, by id; 0 is ``empty``."""
        labels = torch.unique(label_map).tolist()
        return [self.names.get(label, f"label {label}") for label in labels]

    @staticmethod
    def sample2tensors(samples: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Stack items to images [B, 3, 224, 224] and label maps [B, 224, 224]: a DataLoader's
        ``collate_fn``.
        """
        images, label_maps = zip(*samples, strict=True)
        return torch.stack(images), torch.stack(label_maps)


def _axes(ax: Axes | None) -> Axes:
    import matplotlib.pyplot as plt  # noqa: PLC0415  # slow to load

    return plt.gca() if ax is None else ax


def _style(names: Mapping[int, str]) -> ClassStyle:
    """Return how classes are drawn; the label file's order of colours is that of its ids."""
    classes = {key: name for key, name in names.items() if key != _VOID}
    return ClassStyle.of(classes, _VOID, lambda key: names.get(key, f"label {key}"))


def _ids(label_map: Tensor) -> NDArray[np.uint16]:
    return label_map.detach().cpu().numpy().astype(np.uint16)


def _unnormalise(image: Tensor) -> NDArray[np.float32]:
    """Return a preprocessed image [3, H, W] in its original colours, float32 [H, W, 3] in 0..1."""
    mean = torch.tensor(_NORMALISATION.mean).view(3, 1, 1)
    std = torch.tensor(_NORMALISATION.std).view(3, 1, 1)
    pixels = (image.detach().cpu() * std + mean).clamp(0, 1)
    return np.asarray(pixels.permute(1, 2, 0), dtype=np.float32)


def _stay_in_eval(module: nn.Module, mode: bool = True) -> nn.Module:
    del mode
    return module


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image.convert("RGB"))


def _normalise(pixels: NDArray[Any]) -> Tensor:
    """Return uint8 [H, W, 3] as the backbone's input [3, H, W]."""
    scaled = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float().div(255)
    mean = torch.tensor(_NORMALISATION.mean).view(3, 1, 1)
    return (scaled - mean) / torch.tensor(_NORMALISATION.std).view(3, 1, 1)


def _by_stem(folder: Path, suffix: str) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataDirError(f"{folder}: no such folder of {suffix} files")
    paths = (folder / name for name in names_in(folder))
    return {path.stem: path for path in paths if path.suffix == suffix}
