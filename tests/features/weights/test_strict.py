"""Strict loading: what is missing or too much is counted; a classifier's size is no difference."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from vocprep.errors import WeightsError
from vocprep.features.weights import load_strictly, load_weights

State = dict[str, Tensor]


class Classified(nn.Module):
    """A network as timm's are: its configuration names the classifier."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.pretrained_cfg = {"classifier": ("head", "head.extra")}
        self.trunk = nn.Conv2d(3, 4, 1)
        self.headroom = nn.Linear(4, 4)
        self.head = nn.Linear(4, classes)


def state_of(classes: int) -> State:
    return {name: torch.full_like(t, 2.0) for name, t in Classified(classes).state_dict().items()}


def without_head(state: State) -> State:
    return {name: tensor for name, tensor in state.items() if not name.startswith("head.")}


@pytest.mark.parametrize(
    "state",
    [state_of(3), state_of(7), without_head(state_of(3)), {**state_of(3), "head.x": torch.ones(1)}],
    ids=["same", "another size", "none", "more of it"],
)
def test_a_classifier_of_any_size_or_none_is_accepted(state: State) -> None:
    network = Classified()
    load_strictly(network, state)
    assert set(network.trunk.weight.flatten().tolist()) == {2.0}
    assert set(network.headroom.weight.flatten().tolist()) == {2.0}


@pytest.mark.parametrize("name", ["trunk.weight", "headroom.bias"])
def test_all_that_stands_before_it_is_needed(name: str) -> None:
    state = state_of(7)
    del state[name]
    with pytest.raises(WeightsError, match=f"^weights: tensor {name} is missing: expected those"):
        load_strictly(Classified(), state)
    state[name] = torch.ones(9)
    with pytest.raises(WeightsError, match=rf"tensor {name} has shape \(9,\): expected "):
        load_strictly(Classified(), state)


def test_the_classifier_of_torchvision_is_its_last_module() -> None:
    state = dict(resnet18(num_classes=2).state_dict())
    load_strictly(resnet18(), state)
    del state["layer4.1.bn2.bias"]
    with pytest.raises(WeightsError, match=r"tensor layer4\.1\.bn2\.bias is missing"):
        load_strictly(resnet18(), state)


def test_other_names_are_counted_and_a_prefix_is_named() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    wrapped = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    expected = (
        r"tensor 0\.bias is missing: expected those of the backbone; in all 4 of 4 are missing "
        r"and 4 of the 4 there are not part of it: leave out the 'module\.' before every name$"
    )
    with pytest.raises(WeightsError, match=expected):
        load_strictly(network, wrapped)
    others = load_weights("random:0", Path())
    with pytest.raises(WeightsError, match="in all 4 of 4 are missing and 200 of the 200 there"):
        load_strictly(network, others)
