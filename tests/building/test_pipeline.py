"""The threads of a build: what each of them is given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from builders.versions import ENGINE, make_plan
from numpy.typing import NDArray

from vocprep.building.local import build_plan
from vocprep.features.embed import Embedder
from vocprep.options import BuildChoices, Layout

pytestmark = pytest.mark.slow


def test_few_pictures_are_shared_among_the_cores(
    sample_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together: list[int] = []
    embed_images = Embedder.embed_images

    def count(self: Embedder, images: list[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        together.append(len(images))
        return embed_images(self, images)

    monkeypatch.setattr(Embedder, "embed_images", count)
    plan = make_plan(sample_tree, BuildChoices(precision="fp32"), Layout())
    build_plan(plan, tmp_path / "out", ENGINE)
    assert together == [4, 4, 4]
