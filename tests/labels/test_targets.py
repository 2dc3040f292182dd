"""Targets: equal to a loop that anybody can check, exact when packed, exact on the way back."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from vocprep.labels.targets import (
    NO_LABEL,
    STATE_OTHER,
    STATE_VOID,
    Targets,
    count_states,
    make_targets,
    pack_states,
    targets_to_label_map,
    targets_with_areas,
    unpack_states,
)
from vocprep.placement import split_patches


def naive_targets(label_map: NDArray[np.uint16], void: int) -> tuple[list[object], ...]:
    """Slots, areas, counts and states of every patch by plain loops over its pixels."""
    labels, areas, counts, states = [], [], [], []
    for top in range(0, label_map.shape[0], 32):
        for left in range(0, label_map.shape[1], 32):
            pixels = label_map[top : top + 32, left : left + 32].ravel().tolist()
            tally = Counter(pixel for pixel in pixels if pixel != void)
            slots = sorted(tally, key=lambda label: (-tally[label], label))[:4]
            labels.append(slots + [-1] * (4 - len(slots)))
            areas.append([tally[label] for label in slots] + [0] * (4 - len(slots)))
            counts.append(min(len(tally), 255))
            place = {label: slot for slot, label in enumerate(slots)}
            states.append([5 if pixel == void else place.get(pixel, 4) for pixel in pixels])
    return labels, areas, counts, states


@st.composite
def label_maps(draw: st.DrawFn) -> tuple[NDArray[np.uint16], int]:
    """A map of blocks (ties, one-label patches) or of single pixels (many labels), and its void."""
    void = draw(st.sampled_from([0, 255, 32767, 65535]))
    ids = draw(st.lists(st.integers(0, 32767) | st.just(void), min_size=1, max_size=12))
    grid = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    block = draw(st.sampled_from([1, 2, 8, 16, 32]))
    size = (grid[0] * 32 // block, grid[1] * 32 // block)
    seed = draw(st.integers(0, 2**32 - 1))
    drawn = np.random.default_rng(seed).choice(np.array(ids, dtype=np.uint16), size)
    return np.kron(drawn, np.ones((block, block), dtype=np.uint16)), void


def check(label_map: NDArray[np.uint16], void: int) -> Targets:
    targets, pixels_of = targets_with_areas(label_map, void)
    assert pixels_of == Counter(label_map.ravel().tolist())
    labels, areas, counts, states = naive_targets(label_map, void)
    assert targets.slot_labels.tolist() == labels
    assert targets.slot_pixels.tolist() == areas
    assert targets.label_count.tolist() == counts
    assert unpack_states(targets.slot_planes).tolist() == states
    flat = [state for patch in states for state in patch]
    counted = (len(flat), flat.count(STATE_VOID), flat.count(STATE_OTHER))
    assert count_states(targets.slot_planes) == counted
    patches = len(labels)
    assert (targets.slot_labels.dtype, targets.slot_labels.shape) == (np.int16, (patches, 4))
    assert (targets.slot_pixels.dtype, targets.slot_pixels.shape) == (np.uint16, (patches, 4))
    assert (targets.label_count.dtype, targets.label_count.shape) == (np.uint8, (patches,))
    assert (targets.slot_planes.dtype, targets.slot_planes.shape) == (np.uint8, (patches, 3, 128))
    return targets


@given(label_maps())
@example((np.zeros((32, 32), dtype=np.uint16), 0))
@example((np.full((32, 64), 32767, dtype=np.uint16), 0))
@example((np.full((64, 32), 65535, dtype=np.uint16), 65535))
def test_targets_equal_the_naive_loop(case: tuple[NDArray[np.uint16], int]) -> None:
    check(*case)


def test_ties_go_to_the_smaller_id() -> None:
    label_map = np.repeat(np.array([[9, 7, 8, 5, 6, 4, 3, 2]], dtype=np.uint16), 4, axis=1)
    targets = check(np.repeat(label_map, 32, axis=0), void=0)
    assert targets.slot_labels.tolist() == [[2, 3, 4, 5]]
    assert targets.label_count.tolist() == [8]


def test_an_all_void_patch_has_no_slot() -> None:
    targets = check(np.full((32, 32), 255, dtype=np.uint16), void=255)
    assert targets.slot_labels.tolist() == [[NO_LABEL] * 4]
    assert not targets.slot_pixels.any()
    assert (unpack_states(targets.slot_planes) == STATE_VOID).all()


def test_a_patch_of_one_label_counts_1024_pixels() -> None:
    targets = check(np.full((32, 32), 459, dtype=np.uint16), void=0)
    assert targets.slot_pixels.tolist() == [[1024, 0, 0, 0]]


def test_label_count_stops_at_255() -> None:
    targets = check(np.arange(1, 1025, dtype=np.uint16).reshape(32, 32), void=0)
    assert targets.label_count.tolist() == [255]
    assert targets.slot_labels.tolist() == [[1, 2, 3, 4]]


def test_patches_are_in_row_major_order() -> None:
    label_map = np.kron(np.arange(1, 7).reshape(2, 3), np.ones((32, 32))).astype(np.uint16)
    assert check(label_map, void=0).slot_labels[:, 0].tolist() == [1, 2, 3, 4, 5, 6]


@given(
    arrays.arrays(np.uint8, st.tuples(st.integers(0, 3), st.just(1024)), elements=st.integers(0, 7))
)
def test_packing_and_unpacking_are_inverse(states: NDArray[np.uint8]) -> None:
    planes = pack_states(states)
    assert planes.shape == (len(states), 3, 128)
    np.testing.assert_array_equal(unpack_states(planes), states)
    np.testing.assert_array_equal(pack_states(unpack_states(planes)), planes)


def test_planes_hold_bits_in_packbits_order() -> None:
    states = np.zeros(1024, dtype=np.uint8)
    states[0], states[9], states[1023] = 1, 2, 4
    planes = pack_states(states)
    assert np.flatnonzero(planes[0]).tolist() == [0]
    assert (planes[0, 0], planes[1, 1], planes[2, 127]) == (0x80, 0x40, 0x01)


@given(label_maps(), st.sampled_from([0, 40000]))
def test_the_way_back_is_exact_but_for_other(
    case: tuple[NDArray[np.uint16], int], other: int
) -> None:
    label_map, void = case
    targets = make_targets(label_map, void)
    grid = (label_map.shape[0] // 32, label_map.shape[1] // 32)
    found = targets_to_label_map(targets, grid, void, other)
    assert found.dtype == np.uint16
    is_other = unpack_states(targets.slot_planes).reshape(-1, 32, 32) == STATE_OTHER
    expected = np.where(is_other, other, split_patches(label_map))
    np.testing.assert_array_equal(split_patches(found), expected)


@pytest.mark.parametrize("labels", [1, 2, 3, 4])
def test_up_to_four_labels_come_back_whole(labels: int) -> None:
    label_map = np.random.default_rng(labels).integers(0, labels + 1, (64, 96), dtype=np.uint16)
    targets = make_targets(label_map, void=0)
    np.testing.assert_array_equal(targets_to_label_map(targets, (2, 3), 0, 65535), label_map)
