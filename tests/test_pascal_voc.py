"""The notebook utility keeps the names, shapes and numbers of the project's first notebook."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader

from vocprep.errors import DataDirError, LabelDecodeError
from vocprep.features.weights import load_weights
from vocprep.geometry import Geometry
from vocprep.pascal_voc import PascalSet, TFDet, Voc, cifar100_resnet32, cifar_100_names
from vocprep.placement import place_image, split_patches

mpl.use("Agg")
ROOT = Path(__file__).resolve().parent.parent
MEAN = np.array([0.5070, 0.4865, 0.4409])
STD = np.array([0.2673, 0.2564, 0.2761])


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def model() -> TFDet:
    torch.manual_seed(0)
    network = cifar100_resnet32()
    network.load_state_dict(load_weights("random:0", Path()))
    return TFDet(categories=460, res32=network).eval()


@pytest.fixture
def folders(sample_tree: Path) -> tuple[Path, Path, Path]:
    voc = sample_tree / "VOCdevkit" / "VOC2010"
    return voc / "JPEGImages", sample_tree / "trainval", sample_tree / "labels.txt"


def test_preprocess_crops_and_normalises(picture: Image.Image) -> None:
    found = Voc.preprocess(picture)
    placed = place_image(np.asarray(picture), Geometry()) / 255
    assert found.shape == (3, 224, 224)
    np.testing.assert_allclose(found.permute(1, 2, 0).numpy(), (placed - MEAN) / STD, atol=1e-5)


@pytest.mark.parametrize("size", [(400, 300), (300, 400), (32, 32), (20, 900)])
def test_cfar_preprocess_gives_one_input_of_the_backbone(size: tuple[int, int]) -> None:
    assert Voc.cfar_preprocess(Image.new("L", size)).shape == (3, 32, 32)


def test_plot_tensor_shows_the_true_colours(picture: Image.Image) -> None:
    axes = Voc.plot_tensor(Voc.preprocess(picture))
    shown = np.asarray(axes.get_images()[0].get_array())
    np.testing.assert_allclose(shown, place_image(np.asarray(picture), Geometry()) / 255, atol=1e-5)


NAMES = {0: "empty", 1: "cat", 2: "dog", 3: "grass", 4: "sky", 5: "water"}


def legend_of(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def shown_by(axes: Axes) -> NDArray[np.uint8]:
    return np.asarray(axes.get_images()[0].get_array(), dtype=np.uint8)


@pytest.fixture
def axes() -> Iterator[Axes]:
    figure, made = plt.subplots()
    yield made
    plt.close(figure)


def test_plot_label_map_names_its_classes(picture: Image.Image, axes: Axes) -> None:
    label_map = torch.full((224, 224), 3)
    label_map[:56] = 1
    label_map[-28:] = 0
    assert Voc.plot_label_map(label_map, NAMES, ax=axes) is axes
    assert legend_of(axes) == ["grass 62.5 %", "cat 25.0 %", "empty 12.5 %"]
    plain = shown_by(axes)
    assert (plain[100, 100] != plain[10, 10]).any()
    Voc.plot_label_map(label_map, NAMES, Voc.preprocess(picture), ax=axes)
    assert len(np.unique(np.asarray(axes.get_images()[1].get_array())[60:180, :, 0])) > 20
    assert "label 9 100.0 %" in legend_of(
        Voc.plot_label_map(torch.full((32, 32), 9), NAMES, ax=axes)
    )


def test_plot_patches_numbers_the_slots_and_blackens_the_rest(axes: Axes) -> None:
    label_map = torch.full((32, 64), 3)
    for row, (label, height) in enumerate({1: 9, 2: 6, 4: 5, 5: 3}.items()):
        top = (0, 9, 15, 20)[row]
        label_map[top : top + height, 32:] = label
    Voc.plot_patches(label_map, NAMES, ax=axes)
    # 9 rows of grass and cat each, ties to the smaller id, then dog and sky; water is the fifth.
    found = [(text.get_text(), text.get_position()) for text in axes.texts]
    assert [number for number, _ in found] == ["1", "1", "2", "3", "4"]
    rows = [label_map[int(y), int(x)].item() for _, (x, y) in found]
    np.testing.assert_allclose(found[0][1], (16, 16), atol=1)
    assert rows == [3, 1, 3, 2, 4]
    black = (shown_by(axes) == 0).all(axis=-1)
    assert black[20:23, 33:].all()
    assert not black[:19].any()


def test_plot_prediction_is_the_label_map_of_the_strongest_masks(axes: Axes) -> None:
    y, z = torch.zeros(49, 6), torch.zeros(49, 1024, 4)
    y[:, 4], y[:, 2] = 9, 5
    z[:, :, 0], z[:, 512:, 1] = 0.5, 0.8
    Voc.plot_prediction(y, z, NAMES, ax=axes)
    assert legend_of(axes) == ["dog 50.0 %", "sky 50.0 %"]
    painted = shown_by(axes)
    assert (painted[8, 8] == painted[40, 8]).all()
    assert (painted[8, 8] != painted[24, 8]).any()


def test_freeze_survives_train_on_a_parent(picture: Image.Image) -> None:
    network = cifar100_resnet32()
    Voc.freeze(network.layer1)
    parent = torch.nn.Sequential(network)
    parent.train()
    assert network.layer2.training
    assert not any(module.training for module in network.layer1.modules())
    before = {name: value.clone() for name, value in network.layer1.state_dict().items()}
    parent(Voc.cfar_preprocess(picture).expand(4, -1, -1, -1))
    for name, value in network.layer1.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert Voc.num_params(network.layer1) == 0


def test_parameter_counts(model: TFDet) -> None:
    assert Voc.num_params(model) == 12_470_732
    assert sum(p.numel() for p in model.parameters()) == 12_936_988


@torch.no_grad()
def test_the_model_takes_one_picture_or_several(model: TFDet, picture: Image.Image) -> None:
    patches = Voc.preprocess(picture).unfold(1, 32, 32).unfold(2, 32, 32)
    patches = patches.flatten(1, 2).permute(1, 0, 2, 3)
    tiles = split_patches(place_image(np.asarray(picture), Geometry())) / 255
    wanted = torch.from_numpy((tiles - MEAN) / STD).permute(0, 3, 1, 2)
    torch.testing.assert_close(patches, wanted.float(), atol=1e-5, rtol=0)
    y, z = model(patches)
    assert (y.shape, z.shape) == ((49, 460), (49, 1024, 4))
    assert float(z.min()) >= 0
    assert float(z.max()) <= 1
    ys, zs = model(torch.stack([patches, patches.flip(0)]))
    torch.testing.assert_close(ys[0], y, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(zs[0], z, atol=1e-4, rtol=1e-4)


def test_to_segment_is_the_double_loop(model: TFDet) -> None:
    y, z = torch.randn(2, 460), torch.rand(2, 1024, 4)
    expected = torch.zeros(2, 1024, 460)
    _, ind = torch.topk(y, 4)
    for i in range(2):
        for j in range(1024):
            expected[i, j, ind[i, :]] = z[i, j, :]
    assert torch.equal(model.toSegment(y, z), expected)


def test_pascal_set_counts_reads_and_names(
    folders: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, mats, labels = folders
    fewer = tmp_path / "mats"
    fewer.mkdir()
    for path in sorted(mats.iterdir())[:5]:
        (fewer / path.name).write_bytes(path.read_bytes())
    dataset = PascalSet(images, fewer, labels)
    assert capsys.readouterr().out == (
        "images: 12\nsegmentations: 5\nimages without segmentation: 7\n"
    )
    assert len(dataset) == 5
    (fewer / "._2010_000001.mat").touch()  # left by macOS beside each file on foreign disks
    assert len(PascalSet(images, fewer, labels)) == 5
    capsys.readouterr()
    image, label_map = dataset[2]
    assert (image.shape, label_map.shape) == ((3, 224, 224), (224, 224))
    names = dict(line.split(": ", 1) for line in labels.read_text().splitlines())
    present = [str(label) for label in sorted(set(label_map.flatten().tolist())) if label]
    assert [name for name in dataset.getNames(label_map) if name != "empty"] == [
        names[label] for label in present
    ]
    batches = list(DataLoader(dataset, batch_size=3, collate_fn=PascalSet.sample2tensors))
    assert [tuple(batch[1].shape) for batch in batches] == [(3, 224, 224), (2, 224, 224)]


def test_pascal_set_refuses_what_does_not_fit(
    folders: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    images, mats, labels = folders
    with pytest.raises(DataDirError, match="no such folder"):
        PascalSet(images, tmp_path / "none", labels)
    for text in (
        "not a label\n",
        "1: cat\n1: dog\n",
        "1\u00b2: cat\n",
        "9" * 5000 + ": a\n",
        "1:\n",
    ):
        (tmp_path / "labels.txt").write_text(text)
        with pytest.raises(DataDirError, match=r"labels\.txt: .*lines? .*") as caught:
            PascalSet(images, mats, tmp_path / "labels.txt")
        assert len(str(caught.value)) < 400
    (tmp_path / "labels.txt").write_text("1: cat\n", encoding="utf-16")
    with pytest.raises(DataDirError, match="UTF-16 text"):
        PascalSet(images, mats, tmp_path / "labels.txt")
    Image.new("RGB", (40, 50)).save(tmp_path / "2010_000001.jpg")
    with pytest.raises(LabelDecodeError, match=r"2010_000001\.mat: label map of shape"):
        PascalSet(tmp_path, mats, labels)[0]


def test_cifar_names() -> None:
    assert len(cifar_100_names) == len(set(cifar_100_names)) == 100
    assert cifar_100_names[torch.tensor(42)] == "leopard"
    assert list(cifar_100_names) == sorted(cifar_100_names)
