"""The project's first notebook, snippet by snippet, on the modules it has become.

    python examples/seed_walkthrough.py [--picture PICTURE.jpg] [--weights PATH] [--out FOLDER]

Without arguments it draws a picture of its own and takes an untrained backbone, and says so: the
shapes and the figure come out alike, the class that it names means nothing then.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from PIL import Image

from vocprep.features.networks import CifarResNet
from vocprep.features.weights import load_weights
from vocprep.pascal_voc import PascalSet, TFDet, Voc, cifar100_resnet32, cifar_100_names
from vocprep.synthetic.dataset import sample


def main() -> None:
    """Run all snippets."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--weights", default="random:0")
    parser.add_argument("--out", type=Path, default=Path("seed-walkthrough"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        sample(data, images=4)
        images = data / "VOCdevkit" / "VOC2010" / "JPEGImages"
        picture = arguments.picture or min(images.iterdir())
        with Image.open(picture) as x:
            x.load()
        print(f"picture: {picture.name}; weights: {arguments.weights}")
        a = image_utilities(x, arguments.out)
        res32 = classify(x, arguments.weights)
        patches = divide_into_patches(a, arguments.out)
        y, z = detect(res32, patches)
        dataset = pascal_set(images, data / "trainval", data / "labels.txt")
        look(dataset, (a, y, z), arguments.out)


def image_utilities(x: Image.Image, out: Path) -> torch.Tensor:
    """Preprocess a picture and look at it."""
    print("\n# image utilities")
    a = Voc.preprocess(x)
    print(a.shape)
    plt.figure()
    Voc.plot_tensor(a)
    save(out / "picture.png")
    return a


def classify(x: Image.Image, weights: str) -> CifarResNet:
    """Classify the whole picture with the CIFAR-100 network."""
    print("\n# the ResNet-32 front end")
    res32 = cifar100_resnet32()
    res32.load_state_dict(load_weights(weights, Path()))
    res32.eval()
    a = Voc.cfar_preprocess(x).unsqueeze(0)
    print(a.shape)
    b = res32(a)
    print(b.shape)
    b = F.softmax(b, dim=1)
    print(torch.max(b), torch.argmax(b))
    print("it is ---", cifar_100_names[torch.argmax(b)])
    return res32


def divide_into_patches(a: torch.Tensor, out: Path) -> torch.Tensor:
    """Divide a picture [3, 224, 224] into patches [49, 3, 32, 32] and show them."""
    print("\n# 7×7 patches")
    print(a.shape)
    b = a.unfold(1, 32, 32).unfold(2, 32, 32)
    b = b.flatten(1, 2)  # (3, 7, 7, 32, 32) => (3, 49, 32, 32)
    b = b.permute(1, 0, 2, 3)
    print(b.shape)
    _, ax = plt.subplots(7, 7)
    for i in range(7):
        for j in range(7):
            Voc.plot_tensor(b[i * 7 + j], ax=ax[i, j])
    save(out / "patches.png")
    return b


def detect(res32: CifarResNet, patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the whole model on one picture's patches."""
    print("\n# TFDet")
    model = TFDet(categories=460, res32=res32)
    print(f"trainable parameters: {Voc.num_params(model):,}")
    print(f"with the frozen trunk: {sum(p.numel() for p in model.parameters()):,}")
    model.eval()
    with torch.no_grad():
        y, z = model(patches)
        print(y.shape, z.shape)
        print(model.toSegment(y, z).shape)
    return y, z


def pascal_set(images: Path, mats: Path, labels: Path) -> PascalSet:
    """Read pictures with their label maps, one by one and in batches."""
    print("\n# PascalSet")
    dataset = PascalSet(images, mats, labels)
    image, label_map = dataset[0]
    print(image.shape, label_map.shape, dataset.getNames(label_map))
    loader = torch.utils.data.DataLoader(dataset, batch_size=2, collate_fn=PascalSet.sample2tensors)
    for batch_images, batch_maps in loader:
        print(batch_images.shape, batch_maps.shape)
    return dataset


def look(
    dataset: PascalSet, found: tuple[torch.Tensor, torch.Tensor, torch.Tensor], out: Path
) -> None:
    """Look at a label map, its patches with their slots, and what the model made of a picture.

    The model is not trained, so that its picture shows no more than how one is drawn.
    """
    print("\n# label maps")
    image, label_map = dataset[0]
    a, y, z = found
    _, ax = plt.subplots(1, 3, figsize=(18, 5), layout="constrained")
    Voc.plot_label_map(label_map, dataset.names, image, ax=ax[0])
    Voc.plot_patches(label_map, dataset.names, ax=ax[1])
    Voc.plot_prediction(y, z, dataset.names, a, ax=ax[2])
    save(out / "label_maps.png")


def save(path: Path) -> None:
    """Write the current figure."""
    plt.savefig(path)
    plt.close()
    print(f"figure: {path}")


if __name__ == "__main__":
    main()
