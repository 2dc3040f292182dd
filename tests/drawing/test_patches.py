"""A label map cut into its patches, as the slots of their targets hold it."""

from __future__ import annotations

import numpy as np

from vocprep.drawing.palette import ClassStyle
from vocprep.drawing.patches import frame_patches, paint_patches

STYLE = ClassStyle.of({1: "cat", 2: "dog"}, 0, str, given={1: (200, 10, 10), 2: (10, 10, 200)})


def test_patches_are_separated_and_what_is_left_out_is_black() -> None:
    label_map = np.ones((64, 96), dtype=np.uint16)
    left_out = np.zeros(label_map.shape, dtype=np.bool_)
    left_out[10:20, 40:50] = True
    painted = paint_patches(label_map, left_out, STYLE, side=32)
    assert (painted[[0, 32]] == 255).all()
    assert (painted[:, [0, 32, 64]] == 255).all()
    assert (painted[left_out] == 0).all()
    assert (painted[1:10, 1:32] == STYLE.colour(1)).all()


def test_void_is_told_from_a_class_and_from_what_is_left_out() -> None:
    label_map = np.full((32, 32), 2, dtype=np.uint16)
    label_map[8:, 8:] = 0
    painted = paint_patches(label_map, label_map == 9, STYLE, side=32)
    void = painted[12:, 12:].reshape(-1, 3)
    assert len(np.unique(void, axis=0)) > 1
    assert not (void == STYLE.colour(2)).all(axis=1).any()
    assert void.max(axis=1).min() > 0


def test_frames_are_seen_on_black_and_on_white_and_leave_other_patches_alone() -> None:
    for shade in (0, 255):
        pixels = np.full((64, 96, 3), shade, dtype=np.uint8)
        framed = frame_patches(pixels, [0, 4], side=32)
        changed = (framed != pixels).any(axis=2).reshape(2, 32, 3, 32).any(axis=(1, 3))
        assert changed.tolist() == [[True, False, False], [False, True, False]]
        assert (framed[8:24, 40:56] == shade).all()
        assert (pixels == shade).all()


def test_patches_of_single_pixels_are_framed() -> None:
    pixels = np.full((2, 3, 3), 9, dtype=np.uint8)
    assert frame_patches(pixels, [5], side=1)[..., 0].tolist() == [[9, 9, 9], [9, 9, 0]]
