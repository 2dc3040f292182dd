from __future__ import annotations

import re
from pathlib import Path

import pytest
from builders.versions import Built


@pytest.mark.parametrize("name", ["crop_hdf5", "native_tar"])
def test_code_of_the_card_runs_as_it_is(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes of cards are part of finished versions, so what they import has to stay."""
    built: Built = request.getfixturevalue(name)
    text = (built.path / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(built.path.parent)
    variables: dict[str, object] = {}
    exec(code.replace("path/to/this/folder", str(built.path)), variables)
    assert variables["batch"].embeddings.ndim == 3  # type: ignore[attr-defined]


def test_card_lists_the_classes_by_their_names(crop_hdf5: Built) -> None:
    text = (crop_hdf5.path / "README.md").read_text()
    pixels = crop_hdf5.index.statistics["label_pixels"]
    largest = max(pixels, key=lambda label: (pixels[label], -int(label)))
    assert f"| {largest} | {crop_hdf5.plan.label_space.names[int(largest)]} |" in text


def test_card_points_to_the_folder_only_by_a_placeholder(crop_hdf5: Built) -> None:
    assert str(Path(crop_hdf5.path)) not in (crop_hdf5.path / "README.md").read_text()
