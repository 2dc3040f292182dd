"""Networks of a file of one's own: the protocol, its faults in words, and when its code is run."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
import torch
from builders.own_backbone import PATCHES, WHOLE, write

from vocprep.backbones import Layer
from vocprep.errors import UsageError, WeightsError
from vocprep.features.libraries import own_file
from vocprep.features.libraries.kinds import describe_network, make_network
from vocprep.features.libraries.maps import DescribedNetwork, NetworkChoice
from vocprep.features.weights import load_weights, tensor_digest
from vocprep.geometry import Geometry


def describe(
    spec: str, layers: tuple[str, ...] | None = None, cells: int | None = None
) -> DescribedNetwork:
    choice = NetworkChoice(model=spec, layers=layers, cells=cells, geometry=Geometry())
    return describe_network(spec, choice)


def test_a_whole_picture_gives_maps_by_name(tmp_path: Path) -> None:
    spec = write(tmp_path)
    found = describe(spec, ("early", "-1"), 2)
    source = hashlib.sha256(WHOLE.encode()).hexdigest()
    assert (found.name, found.network.source_sha256) == ("module:make", source)
    assert found.layers == ("early", "late")
    assert found.network.layers == {
        "early": Layer(channels=4, cells=2),
        "late": Layer(channels=6, cells=1),
    }
    assert found.normalisation.mean == (0.5, 0.4, 0.3)
    assert not found.network.takes_patches
    assert str(tmp_path) not in repr(found.network)  # a recipe holds no place
    network = make_network(found.name, found.network)
    assert network(torch.zeros(1, 3, 64, 96))["early"].shape == (1, 4, 8, 12)


def test_the_last_map_is_the_default(tmp_path: Path) -> None:
    assert describe(write(tmp_path)).layers == ("late",)
    named = WHOLE.replace("    mean,", '    layers = ("early",)\n    mean,')
    assert describe(write(tmp_path, named)).layers == ("early",)


def test_patches_alone_are_an_input_of_their_own(tmp_path: Path) -> None:
    found = describe(write(tmp_path, PATCHES))
    assert found.network.takes_patches
    assert found.network.layers == {"output": Layer(channels=5, cells=2)}
    assert found.normalisation.mean == (0.485, 0.456, 0.406)


def test_a_vector_per_patch_is_a_map_of_one_cell(tmp_path: Path) -> None:
    source = PATCHES.replace("return self.conv(x)", "return self.conv(x).mean(dim=(2, 3))")
    assert describe(write(tmp_path, source)).network.layers == {
        "output": Layer(channels=5, cells=1)
    }


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("import torch\n", "import nothing_there\n", "ModuleNotFoundError: No module .*line 2 of"),
        ("class Net", "class Net Net", "SyntaxError: .*line 6 of "),
        ("def make", "def other", "expected a function make in .*net.py, found none"),
        ("return Net()", "return 5", "expected its function to return a torch.nn.Module, found i"),
        ("return Net()", "return 1 / 0", r"raised ZeroDivisionError: .*line 21 of \S*net.py"),
        ("return Net()", "raise SystemExit(0)", "raised SystemExit: 0 .line 21 of"),
        (
            "nn.Conv2d(3, 4",
            "nn.Conv2d(2, 4",
            "does not pass it: RuntimeError: .*line 15 of",
        ),
        ("stride=4", "stride=3", "layer 'late' gives 9×9 places for 7×7 patches of 32×32 pixels"),
        (
            '{"early": early, "late"',
            '{7: early, "late"',
            "layer '7': expected a floating-point map",
        ),
        (
            "self.late(early)}",
            "x[0]}",
            r"layer 'late': expected .* \[1, C, h, w\] .*shape \(3, 224",
        ),
        ("self.late(early)}", '"no"}', "layer 'late': expected a floating-point .*found str"),
        ("mean, std = (0.5,", "mean, std = ('a',", "attributes mean and std: expected three num"),
        ("(0.2, 0.2, 0.2)", "(0.2, 0.2, 0.0)", "std must be more than 0"),
        ("    mean,", "    input_side = 64\n    mean,", "attribute input_side 64: expected 32 for"),
        (
            "    mean,",
            "    patch_pixels = 0\n    mean,",
            "attribute patch_pixels 0: expected",
        ),
        ("    mean,", "    layers = ('x',)\n    mean,", "layers 'x': expected some of early, late"),
        (
            "    mean,",
            "    layers = 'late'\n    mean,",
            "attribute layers 'late': expected",
        ),
        (
            "early = self.stem(x)",
            "raise SystemExit(0)",
            "not pass it: SystemExit: 0 .line 15 of",
        ),
        ("return Net()", "return Net().to('meta')", "tensors have data, found some on torch's dev"),
    ],
)
def test_faults_of_the_file_are_one_sentence(
    tmp_path: Path, old: str, new: str, problem: str
) -> None:
    assert old in WHOLE
    spec = write(tmp_path, WHOLE.replace(old, new))
    with pytest.raises(UsageError, match=problem) as caught:
        describe(spec)
    text = str(caught.value)
    assert "\n" not in text
    if re.search("line [0-9]", problem):
        assert f"its traceback: python -c \"import runpy; runpy.run_path('{tmp_path}" in text


def test_what_is_no_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone\.py cannot be read: No such file"):
        describe(f"{tmp_path}/gone.py:make")
    with pytest.raises(UsageError, match=r"expected FILE\.py:FUNCTION"):
        own_file.load("module:make")


def test_what_lies_beside_the_file_can_be_imported(tmp_path: Path) -> None:
    (tmp_path / "beside_the_file.py").write_text("KERNEL = 8\n")
    source = WHOLE.replace(
        "        self.stem", "        from beside_the_file import KERNEL\n        self.stem"
    )
    assert describe(write(tmp_path, source.replace("4, 8, st", "4, KERNEL, st"))).layers


def test_code_runs_only_where_its_file_is_named(tmp_path: Path) -> None:
    marker = tmp_path / "was_run"
    source = f"{WHOLE}\nwith open({str(marker)!r}, 'a') as stream:\n    stream.write('x')\n"
    spec = write(tmp_path, source)
    digest = hashlib.sha256(source.encode()).hexdigest()
    found = describe(write(tmp_path / "known"))
    foreign = type(found.network)(
        library="module", source_sha256=digest, layers=dict(found.network.layers)
    )
    for unnamed in (
        lambda: make_network("module:make", foreign),
        lambda: own_file.allow(None, "module:make", foreign),
        lambda: load_weights(None, tmp_path, "module:make", foreign),
    ):
        with pytest.raises(UsageError, match=r"runs only where it is named: add --backbone FILE"):
            unnamed()
    other = write(tmp_path / "other", source + "# changed\n")
    with pytest.raises(UsageError, match=f"expected make of the file of sha256 {digest[:12]}"):
        own_file.allow(other, "module:make", foreign)
    assert not marker.exists()
    own_file.allow(spec, "module:make", foreign)
    assert marker.read_text() == "x"
    make_network("module:make", foreign)
    assert marker.read_text() == "x"  # once in a process
    with pytest.raises(UsageError, match="needs no file; leave --backbone out"):
        own_file.allow(spec, "resnet32-cifar100", None)


def test_weights_are_those_that_the_function_gives(tmp_path: Path) -> None:
    found = describe(write(tmp_path))
    state = load_weights(None, tmp_path, found.name, found.network)
    torch.manual_seed(3)
    expected = torch.nn.Conv2d(3, 4, 8, stride=8).weight
    assert torch.equal(state["stem.weight"], expected)
    seeded = load_weights("random:1", tmp_path, found.name, found.network)
    assert tensor_digest(seeded) != tensor_digest(state)


def test_weights_without_a_seed_are_refused(tmp_path: Path) -> None:
    found = describe(write(tmp_path, WHOLE.replace("torch.manual_seed(3)", "pass")))
    before = torch.get_rng_state()
    with pytest.raises(WeightsError, match="gives its network other weights each time"):
        load_weights(None, tmp_path, found.name, found.network)
    assert torch.equal(torch.get_rng_state(), before)
