"""The maps of a network's layers, and how many cells of them lie in each patch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vocprep.backbones import Layer, Network, Normalisation
from vocprep.errors import UsageError
from vocprep.geometry import PATCH, SIDE, Geometry, Grid
from vocprep.validation import printable

SENSIBLE_SIZE = 2048
"""Numbers per patch up to which all cells are kept that ``DEFAULT_CELLS`` allows."""
DEFAULT_CELLS = 2
_CROPPED: tuple[Grid, ...] = ((SIDE // PATCH, SIDE // PATCH),)
_NATIVE: tuple[Grid, ...] = ((2, 3), (3, 1))
"""Patch grids that networks are tried on where pictures have any size."""


@dataclass(frozen=True, kw_only=True)
class NetworkChoice:
    """What a user chooses of a network that is not built in."""

    model: str
    """Its name in the library, or ``FILE.py:FUNCTION``."""
    layers: tuple[str, ...] | None
    """Names or indices of layers; the kind's default when None."""
    cells: int | None
    """The most cells per side of a patch that are kept; see ``kept_layers`` for None."""
    geometry: Geometry

    @property
    def grids(self) -> tuple[Grid, ...]:
        """The patch grids that the network is tried on."""
        return _NATIVE if self.geometry.geometry == "native" else _CROPPED


@dataclass(frozen=True, kw_only=True)
class DescribedNetwork:
    """What a recipe says of a network that is not built in."""

    name: str
    """The backbone's name in the recipe."""
    network: Network
    layers: tuple[str, ...]
    """Names of the chosen layers, in the order of the embedding."""
    normalisation: Normalisation
    """Constants that it was trained with."""


class MapNetwork(nn.Module):
    """Normalised pixels [N, 3, h, w] → the map [N, C, h', w'] of each chosen layer, by name.

    ``model`` is the network itself, under the names of whose tensors weights are kept.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return the maps."""
        raise NotImplementedError


class UnfitError(UsageError):
    """A network does not take a picture, or gives no map whose places tile its patches."""


class MissingLibraryError(UsageError):
    """The library that makes a network is not installed."""


def measure_layers(
    network: MapNetwork, patch_pixels: int, grids: Sequence[Grid]
) -> dict[str, Layer]:
    """Return the channels of each layer's map, and how many of its cells lie in a patch, per side.

    Found by passing blank pictures of some patch grids through the network; UnfitError where the
    cells do not tile the patches of all of them.
    """
    found: dict[str, Layer] = {}
    for grid in grids:
        for name, layer_map in pass_blank(network, grid, patch_pixels).items():
            if not tiles(layer_map, grid):
                rows, columns = layer_map.shape[2:]
                raise UnfitError(
                    f"layer {name!r} gives {rows}×{columns} places for {grid[0]}×{grid[1]} patches "
                    f"of {PATCH}×{PATCH} pixels: expected 1, 2×2, 4×4 … places per patch, which "
                    f"strides that divide {PATCH} give"
                )
            layer = Layer(channels=layer_map.shape[1], cells=layer_map.shape[2] // grid[0])
            if found.setdefault(name, layer) != layer:
                raise UnfitError(f"layer {name!r} has other maps for pictures of other sizes")
    return found


@torch.inference_mode()
def pass_blank(network: MapNetwork, grid: Grid, patch_pixels: int) -> dict[str, Tensor]:
    """Return the maps of a blank picture of so many patches; UnfitError where it does not pass."""
    height, width = (patch_pixels * count for count in grid)
    try:
        maps: dict[str, Tensor] = network.eval()(torch.zeros(1, 3, height, width))
    except UnfitError:
        raise
    except Exception as error:  # networks raise errors of many types
        raise UnfitError(
            f"a picture of {width}×{height} pixels does not pass it: {first_line(error)}"
        ) from error
    return maps


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def tiles(layer_map: Tensor, grid: Grid) -> bool:
    """Return whether each patch of a grid has as many places of a map, per side: at least one."""
    rows, columns = layer_map.shape[2:]
    cells = rows // grid[0]
    return cells > 0 and (rows, columns) == (cells * grid[0], cells * grid[1])


def require_layer(name: str, layer: Layer, found: Tensor, grid: Grid) -> None:
    """Raise UnfitError for a map from which a recipe's layer cannot be taken."""
    rows, columns = found.shape[2:]
    cells = layer.cells
    if found.shape[1] != layer.channels or not tiles(found, grid) or rows // grid[0] % cells:
        raise UnfitError(
            f"layer {printable(name)!r}: expected {layer.channels:,} channels of {cells}×{cells} "
            f"cells or a multiple in each of {grid[0]}×{grid[1]} patches, as the recipe has it, "
            f"found {found.shape[1]:,} channels of {rows}×{columns} places"
        )


def as_map(name: str, found: object, pixels: Tensor, prefix_tokens: int) -> Tensor:
    """Return the output of a layer as a map [N, C, h', w']; UnfitError where it is none.

    It may be that, a map whose channels are last, or tokens [N, T, C], of which the first, which
    stand for no place, are left out.
    """
    height, width = pixels.shape[2:]
    if isinstance(found, Tensor) and found.ndim == 4:
        for layer_map in (found, found.permute(0, 3, 1, 2)):
            rows, columns = layer_map.shape[2:]
            # Of the picture's form, up to a place per side that is rounded away.
            if abs(rows * width - columns * height) <= height + width:
                return layer_map
    if isinstance(found, Tensor) and found.ndim == 3 and found.shape[1] > prefix_tokens:
        tokens = found[:, prefix_tokens:]
        side = max(1, round((height * width / tokens.shape[1]) ** 0.5))
        if (height // side) * (width // side) == tokens.shape[1]:
            return tokens.transpose(1, 2).reshape(
                tokens.shape[0], -1, height // side, width // side
            )
    shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
    raise UnfitError(f"layer {name!r} gives no map of the picture, but {shape}")


def kept_layers(whole: Mapping[str, Layer], cells: int | None) -> dict[str, Layer]:
    """Return layers with the cells that are kept: at most ``cells`` per side, which tile evenly.

    When None, ``DEFAULT_CELLS``, or 1 where the embedding would exceed ``SENSIBLE_SIZE`` numbers.

    >>> layers = {"late": Layer(channels=300, cells=4), "early": Layer(channels=10, cells=8)}
    >>> [layer.cells for layer in kept_layers(layers, 4).values()]
    [4, 4]
    >>> [layer.cells for layer in kept_layers(layers, None).values()]
    [2, 2]
    """
    if cells is None:
        kept = kept_layers(whole, DEFAULT_CELLS)
        sensible = sum(layer.size for layer in kept.values()) <= SENSIBLE_SIZE
        return kept if sensible else kept_layers(whole, 1)
    return {
        name: Layer(channels=layer.channels, cells=_largest_divisor(layer.cells, cells))
        for name, layer in whole.items()
    }


def _largest_divisor(number: int, most: int) -> int:
    return next(cells for cells in range(min(number, most), 0, -1) if number % cells == 0)


def patch_cells(layer_map: Tensor, grid: Grid, cells: int) -> Tensor:
    """Return the cells of each patch: a map [N, C, h', w'] → [N·ny·nx, C·cells²].

    The places of the map in each cell are averaged; channel·cells² + row·cells + column, patches
    row-major.
    """
    ny, nx = grid
    within = layer_map.shape[2] // (ny * cells)
    if within > 1:
        layer_map = nn.functional.avg_pool2d(layer_map, within)
    tiles = layer_map.reshape(*layer_map.shape[:2], ny, cells, nx, cells)
    return tiles.permute(0, 2, 4, 1, 3, 5).reshape(tiles.shape[0] * ny * nx, -1)


def choose_layers(
    backbone: str, given: Sequence[str], features: Sequence[str], unnumbered: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return the names of the layers that a user gives by name or index; UsageError for others.

    Those ``unnumbered`` have names only.

    >>> choose_layers("timm:any", ("-1", "stem"), ("stem", "stage1"))
    ('stage1', 'stem')
    """
    names = [*features, *unnumbered]
    known = {str(place): name for place, name in enumerate(features)}
    known |= {str(place - len(features)): name for place, name in enumerate(features)}
    known |= {name: name for name in names}
    for text in given:
        if text not in known:
            raise UsageError(
                f"layers {printable(text)!r}: expected some of {', '.join(names)}, or an index "
                f"from 0 to {len(features) - 1}, as {backbone} has"
            )
    return tuple(known[text] for text in given)


def nearest_pixels(stride: int) -> int:
    """Return the side in pixels that a patch is resized to, so that it holds whole strides.

    >>> nearest_pixels(16), nearest_pixels(14), nearest_pixels(64)
    (32, 28, 32)
    """
    if PATCH % stride == 0 or stride % PATCH == 0:
        return PATCH
    return max(1, round(PATCH / stride)) * stride
