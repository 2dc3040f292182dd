"""Cells: a grid of g×g cells inside each patch, and values interpolated between their middles.

A picture of ny×nx patches has g·ny × g·nx cells. What is interpolated is so over the whole picture,
across the borders of patches: each place reads the cells of its patch and those around it, and
where the picture ends its last ones again, so that nothing is read from padding.

Shape legend: B batch, P patches (row-major; padded to the batch's largest image), n or g cells per
side of a patch, n² its cells (row-major), (n + 2)² these and those around them, K = 4 slots,
X values per cell.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vocprep.geometry import PATCH
from vocprep.heads.model.loss_parts import count_bits
from vocprep.labels.targets import PLANES, SLOTS

_ROW_BYTES = PATCH // 8


def neighbours(values: Tensor, grids: Tensor, per_side: int) -> Tensor:
    """Return the values of each patch's cells and of those around it: [B, P, (n + 2)², X].

    ``values`` [B, P, n², X] of n = ``per_side``, ``grids`` int64 [B, 2] of (ny, nx). Beyond the
    picture its last cells are repeated; what stands at padded places is finite and meaningless.
    """
    return take(values, around(grids, values.shape[1], per_side))


def take(values: Tensor, places: Tensor) -> Tensor:
    """Return the values [B, P, n², X] of images' cells at these ``places``: [B, …, X].

    ``places`` int64 [B, …] among an image's P·n². Whole rows are copied, in a tenth of the time
    of ``Tensor.gather``.
    """
    batch, patches, cells, size = values.shape
    first = torch.arange(batch, device=places.device) * patches * cells
    rows = places.flatten(1) + first.unsqueeze(1)
    return values.reshape(-1, size).index_select(0, rows.flatten()).view(*places.shape, size)


def around(grids: Tensor, patches: int, per_side: int) -> Tensor:
    """Return the places of these cells among an image's P·n²: int64 [B, P, (n + 2)²]."""
    patch = torch.arange(patches, device=grids.device)
    steps = torch.arange(-1, per_side + 1, device=grids.device)
    columns = grids[:, 1:2].clamp(min=1)

    def along(place: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        last = (count.clamp(min=1) * per_side - 1).unsqueeze(-1)
        cells = (place.unsqueeze(-1) * per_side + steps).clamp(min=0).minimum(last)
        return cells // per_side, cells % per_side

    row, row_cell = along(patch // columns, grids[:, 0:1])
    column, column_cell = along(patch % columns, grids[:, 1:2])
    of_patch = (row * columns.unsqueeze(-1)).unsqueeze(-1) + column.unsqueeze(-2)
    in_patch = (row_cell * per_side).unsqueeze(-1) + column_cell.unsqueeze(-2)
    return (of_patch * per_side**2 + in_patch).flatten(-2)


def around_each(grids: Tensor, patches: int, per_side: int) -> Tensor:
    """Return the places of every cell and of the eight around it: int64 [B, P, n², 9], row-major.

    As ``around`` does for patches: beyond the picture its last cells are repeated.
    """
    square = around(grids, patches, per_side).view(-1, patches, per_side + 2, per_side + 2)
    return square.unfold(2, 3, 1).unfold(3, 3, 1).flatten(4).flatten(2, 3)


def between(per_side: int, points: int, device: torch.device) -> Tensor:
    """Return the weights of bilinear interpolation: float32 [points², (n + 2)²].

    From the middles of a patch's cells and of those around it to the middles of ``points`` ×
    ``points`` squares that the patch is cut into.
    """
    place = (torch.arange(points, device=device) + 0.5) * per_side / points + 0.5
    cells = torch.arange(per_side + 2, device=device)
    axis = (1 - (place.unsqueeze(1) - cells).abs()).clamp(min=0)
    return torch.kron(axis, axis)


def within_window(cells: int, window: int, points: int, device: torch.device) -> Tensor:
    """Return the weights [points², cells²] of the patch in the middle of a larger window.

    From the cells × cells squares that a window of ``window`` pixels per side is cut into, to the
    ``points`` × ``points`` of the patch: interpolated bilinearly between middles where these are
    finer; else the mean over each of them, cells weighing by the area that they share with it.
    """
    size, step = window / cells, PATCH / points
    start = (window - PATCH) / 2 + torch.arange(points, device=device) * step
    cell = torch.arange(cells, device=device)
    if step > size:
        first = torch.maximum(start.unsqueeze(1), cell * size)
        last = torch.minimum(start.unsqueeze(1) + step, (cell + 1) * size)
        axis = (last - first).clamp(min=0) / step
    else:
        middle = ((start + step / 2) / size - 0.5).clamp(0, cells - 1)
        axis = (1 - (middle.unsqueeze(1) - cell).abs()).clamp(min=0)
    return torch.kron(axis, axis)


def averages(per_side: int, points: int, device: torch.device) -> Tensor:
    """Return the weights [points², n²] of the mean over the cells that each of fewer squares meets.

    Where n is a multiple of ``points`` these are the cells inside it.
    """
    squares = torch.arange(points, device=device)
    first, last = squares * per_side // points, -(-(squares + 1) * per_side // points)
    cells = torch.arange(per_side, device=device)
    inside = (cells >= first.unsqueeze(1)) & (cells < last.unsqueeze(1))
    axis = inside / inside.sum(dim=1, keepdim=True)
    return torch.kron(axis, axis)


def resample(values: Tensor, grids: Tensor, per_side: int, points: int) -> Tensor:
    """Return values [B, P, n², X] on ``points`` × ``points`` squares per patch: [B, P, points², X].

    Interpolated where these are finer than the n×n cells, averaged where they are coarser.
    """
    if per_side == points:
        return values
    if per_side > points:
        return averages(per_side, points, values.device).to(values.dtype) @ values
    around = neighbours(values, grids, per_side)
    return between(per_side, points, values.device).to(values.dtype) @ around


def cell_shares(slot_planes: Tensor, per_side: int) -> tuple[Tensor, Tensor]:
    """Return each slot's share of every cell's valid pixels, and how many of these there are.

    float32 [B, P, g², 4] and int64 [B, P, g²], of bit planes uint8 [B, P, 3, 128] and ``per_side``
    1, 2 or 4: a cell is then whole bytes of each row. Shares sum to less than 1 where the patch
    has more than four classes, and to 0 without valid pixels.
    """
    rows, size = PATCH // per_side, _ROW_BYTES // per_side
    planes = slot_planes.reshape(*slot_planes.shape[:-1], per_side, rows, per_side, size)
    zero, one, two = (planes[..., bit, :, :, :, :] for bit in range(PLANES))
    first = ~(one | two)
    states = [first & ~zero, first & zero, one & ~zero, one & zero, ~(zero & two)]
    # In order: the four slots, and every pixel that is not void.
    sums = [count_bits(state).sum(dim=(-3, -1)) for state in states]
    counts = torch.stack(sums, dim=-1).flatten(2, 3)
    valid = counts[..., SLOTS:]
    return counts[..., :SLOTS] / valid.clamp(min=1), valid.squeeze(-1)
