"""Batches: the patches of several records as the tensors that a training step takes.

Shape legend: B records of a batch, P patches (the most that one of them has; the others are
padded), D embedding, K = 4 slots, N records of a table, T patches of all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vocprep.labels.targets import NO_LABEL, PIXELS, STATE_VOID, pack_states
from vocprep.shards.record import Record, RecordPng

PADDING: dict[str, Any] = {
    "embeddings": 0,
    "slot_labels": NO_LABEL,
    "slot_pixels": 0,
    "slot_planes": pack_states(np.full(PIXELS, STATE_VOID, dtype=np.uint8)),
}
"""The patch fields of a batch, and what each holds where there is no patch."""
BATCH_DTYPES = {
    "embeddings": torch.float32,
    "slot_labels": torch.int64,
    "slot_pixels": torch.int64,
    "slot_planes": torch.uint8,
}
"""torch computes little with 16-bit integers, so a batch has other dtypes than a shard."""
_TENSORS = ("grids", "padding", *PADDING)


@dataclass(frozen=True, eq=False, repr=False)
class Batch:
    """The patches of several records, padded to one number."""

    image_ids: tuple[str, ...]
    """The B records' ids; none where the batch is blank, whose B rows are padding."""
    grids: Tensor
    """int64 [B, 2]: (ny, nx)."""
    padding: Tensor
    """bool [B, P], True where there is no patch: a key-padding mask."""
    has_padding: bool
    """Whether ``padding`` is True anywhere; known without waiting for a device."""
    embeddings: Tensor
    """float32 [B, P, D], 0 where padded."""
    slot_labels: Tensor
    """int64 [B, P, 4], −1 where absent or padded."""
    slot_pixels: Tensor
    """int64 [B, P, 4]"""
    slot_planes: Tensor
    """uint8 [B, P, 3, 128]; padded patches are all void."""
    label_maps: Sequence[NDArray[np.uint16]] | None = None
    """Each [32·ny, 32·nx] under the label space, decoded when it is taken; None unless chosen."""
    mixed: Tensor | None = None
    """int64 [M]: which of the B·P patches hold two classes or more; None unless listed."""
    cell_shares: tuple[Tensor, Tensor] | None = None
    """Shares of classes in cells, float32 [B, P, g², 4], and valid pixels of cells, int64
    [B, P, g²]: what several heads of g×g cells are taught, computed once; None unless it was."""

    def __len__(self) -> int:
        return len(self.image_ids)

    def __repr__(self) -> str:
        _, patches, size = self.embeddings.shape
        return (
            f"Batch({len(self)} records, {patches} patches each, {size} numbers per patch, "
            f"{'some' if self.has_padding else 'no'} padding, {self.embeddings.device})"
        )

    def to(self, device: torch.device) -> Batch:
        """Return the batch with its tensors on a device."""
        moved: dict[str, Any] = {name: getattr(self, name).to(device) for name in _TENSORS}
        if self.mixed is not None:
            moved["mixed"] = self.mixed.to(device)
        if self.cell_shares is not None:
            moved["cell_shares"] = tuple(each.to(device) for each in self.cell_shares)
        return replace(self, **moved)

    def with_mixed(self, count: int | None = None) -> Batch:
        """Return the batch with ``mixed`` listed; a ``count`` that is known spares a device's wait.

        It must be how many these patches are.
        """
        holds_two = (self.slot_labels[..., 1] != NO_LABEL).flatten()
        size = int(holds_two.sum()) if count is None else count
        return replace(self, mixed=torch.nonzero_static(holds_two, size=size).squeeze(1))

    def part(self, rows: slice) -> Batch:
        """Return some of the records, at least one, padded to the longest of these."""
        lengths = self.grids[rows].prod(dim=1)
        longest, shortest = int(lengths.max()), int(lengths.min())
        fields: dict[str, Any] = {
            name: getattr(self, name)[rows, :longest] for name in ("padding", *PADDING)
        }
        return replace(
            self,
            image_ids=self.image_ids[rows],
            grids=self.grids[rows],
            has_padding=shortest < longest,
            label_maps=None if self.label_maps is None else self.label_maps[rows],
            mixed=None,
            cell_shares=None,
            **fields,
        )

    def blank(self) -> Batch:
        """Return a batch without records: tensors of the same shapes, all of padding."""
        fields: dict[str, Any] = {"padding": torch.ones_like(self.padding)}
        for name, value in PADDING.items():
            field = getattr(self, name)
            filler = torch.as_tensor(value, dtype=field.dtype, device=field.device)
            fields[name] = filler.expand_as(field)
        return replace(
            self,
            image_ids=(),
            has_padding=True,
            label_maps=None if self.label_maps is None else (),
            mixed=None,
            cell_shares=None,
            **fields,
        )


class PatchTable:
    """The patches of N records in one tensor per field, from which batches are gathered."""

    def __init__(
        self, image_ids: Sequence[str], grids: Tensor, fields: Mapping[str, Tensor]
    ) -> None:
        self.image_ids = image_ids
        """The N records' ids."""
        self.grids = grids
        """int64 [N, 2], on the host: (ny, nx)."""
        self.fields = fields
        """Each field of ``PADDING`` as stored, [T + 1, …]: the patches of all records one after
        another, and one patch of padding behind them."""
        self._ids = np.array(image_ids, dtype=object)
        lengths = grids.prod(dim=1)
        self.lengths: NDArray[np.int64] = lengths.numpy()
        """int64 [N]: patches of each record."""
        self._is_even = bool((lengths == lengths[0]).all())
        device = fields["embeddings"].device
        self._grids, self._lengths = grids.to(device), lengths.to(device)
        self._starts = (lengths.cumsum(dim=0) - lengths).to(device)

    @classmethod
    def of(cls, records: Sequence[Record]) -> Self:
        """Copy the patches of records, at least one, into a table."""
        fields = {}
        for name in PADDING:
            arrays = [getattr(record, name) for record in records]
            fields[name] = _concatenate([*arrays, _filler(name, arrays[0], 1)])
        grids = torch.tensor([record.grid for record in records])
        return cls([record.image_id for record in records], grids, fields)

    def to(self, device: torch.device) -> PatchTable:
        """Return the table with its patches on a device."""
        fields = {name: field.to(device) for name, field in self.fields.items()}
        return PatchTable(self.image_ids, self.grids, fields)

    def gather(self, rows: NDArray[np.intp], placed: Tensor | None = None) -> Batch:
        """Return the batch of chosen records [B], each padded to the longest of them.

        ``placed`` holds the same row numbers on the table's device, where they are there already:
        then nothing waits for the device.
        """
        chosen = torch.from_numpy(rows).to(self._grids.device) if placed is None else placed
        lengths = self.lengths[rows]
        longest = int(lengths.max())
        padding = padding_of(self._lengths[chosen], longest)
        if self._is_even:  # whole records at once, which are longer pieces to copy
            fields = {
                name: field[:-1].view(-1, longest, *field.shape[1:]).index_select(0, chosen)
                for name, field in self.fields.items()
            }
        else:
            steps = torch.arange(longest, device=chosen.device)
            patches = self._starts[chosen].unsqueeze(1) + steps
            patches = patches.masked_fill(padding, len(self.fields["embeddings"]) - 1).flatten()
            fields = {
                name: field.index_select(0, patches).view(*padding.shape, *field.shape[1:])
                for name, field in self.fields.items()
            }
        return Batch(
            image_ids=tuple(self._ids[rows].tolist()),
            grids=self._grids[chosen],
            padding=padding,
            has_padding=bool(lengths.min() < longest),
            **_as_in_batch(fields),
        )


def collate(records: Sequence[Record], *, label_maps: bool = False) -> Batch:
    """Return the batch of some records, at least one: a DataLoader's collate function.

    Each field is padded to [B, P, …], where P is the most patches that a record has; ``padding``
    [B, P] is True where there is none. ``label_maps`` adds the decoded label map of each record.

    >>> from vocprep.shards.record import PATCH_FIELDS
    >>> fields = {
    ...     name: np.zeros((2, *shape), dtype) for name, (dtype, shape) in PATCH_FIELDS.items()
    ... }
    >>> texts = {"split": "train", "label_png": b"", "image_sha256": "", "label_sha256": ""}
    >>> embeddings = np.ones((2, 256), np.float16)
    >>> record = Record(image_id="a", grid=(1, 2), embeddings=embeddings, **fields, **texts)
    >>> collate([record, record])
    Batch(2 records, 2 patches each, 256 numbers per patch, no padding, cpu)
    """
    lengths = [len(record.embeddings) for record in records]
    longest, shortest = max(lengths), min(lengths)
    padding = padding_of(torch.tensor(lengths), longest)
    fields = {}
    for name in PADDING:
        # Not through a PatchTable, which would copy the patches once more.
        arrays = [getattr(record, name) for record in records]
        if shortest < longest:
            filler = _filler(name, arrays[0], longest - shortest)
            pairs = [(array, filler[: longest - len(array)]) for array in arrays]
            arrays = [piece for pair in pairs for piece in pair]
        field = _concatenate(arrays)
        fields[name] = field.view(*padding.shape, *field.shape[1:])
    batch = Batch(
        image_ids=tuple([record.image_id for record in records]),
        grids=torch.tensor([record.grid for record in records]),
        padding=padding,
        has_padding=shortest < longest,
        **_as_in_batch(fields),
    )
    return with_label_maps(batch, records) if label_maps else batch


def _concatenate(arrays: Sequence[NDArray[Any]]) -> Tensor:
    """Return patches [·, …] of several records one after another."""
    return as_tensor(np.concatenate(arrays))


def as_tensor(array: NDArray[Any]) -> Tensor:
    """Return an array as a tensor, uint16 as int16.

    A patch has 1,024 pixels, and CUDA gathers no unsigned integers of 16 bits.
    """
    field = torch.from_numpy(array)
    return field.view(torch.int16) if field.dtype == torch.uint16 else field


def _filler(name: str, like: NDArray[Any], count: int) -> NDArray[Any]:
    """Return what a field [count, …] holds where there is no patch, with the dtype of ``like``."""
    filler = np.empty((count, *like.shape[1:]), dtype=like.dtype)
    filler[:] = PADDING[name]
    return filler


def padding_of(lengths: Tensor, longest: int) -> Tensor:
    """Return bool [B, P], True from each record's number of patches [B] on."""
    return torch.arange(longest, device=lengths.device) >= lengths.unsqueeze(1)


def _as_in_batch(fields: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return fields as stored with the dtypes of a batch."""
    return {name: field.to(BATCH_DTYPES[name]) for name, field in fields.items()}


class LabelMaps(Sequence[NDArray[np.uint16]]):
    """The label maps of records, decoded each time that they are taken.

    A split's are larger than all else of it, and the targets say most of what they hold.
    """

    def __init__(self, pngs: Sequence[RecordPng]) -> None:
        self._pngs = pngs

    def __len__(self) -> int:
        return len(self._pngs)

    @overload
    def __getitem__(self, index: int) -> NDArray[np.uint16]: ...
    @overload
    def __getitem__(self, index: slice) -> LabelMaps: ...
    def __getitem__(self, index: int | slice) -> NDArray[np.uint16] | LabelMaps:
        """Return one label map, or the sequence of several; ShardError when one is damaged."""
        if isinstance(index, slice):
            return LabelMaps(self._pngs[index])
        return self._pngs[index].decode()

    def __repr__(self) -> str:
        return f"LabelMaps({len(self)} to be decoded)"


def with_label_maps(batch: Batch, records: Sequence[Record]) -> Batch:
    """Return a batch with its records' label maps beside the patches."""
    return replace(batch, label_maps=LabelMaps([record.png for record in records]))
