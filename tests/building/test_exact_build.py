"""Builds in exact arithmetic: one version, whatever instruction set, library or thread made it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.version_bytes import version_bytes
from builders.versions import ENGINE, WEIGHTS, Built, build, make_plan
from safetensors.torch import save_file

import vocprep
from vocprep.building.local import build_plan
from vocprep.building.output.resume import has_same_tools
from vocprep.building.plan import BuildKey
from vocprep.checks.diff import diff
from vocprep.checks.lock import lock
from vocprep.checks.recompute import recompute
from vocprep.checks.remake import build_locked
from vocprep.errors import UsageError, WeightsError
from vocprep.features.devices import numerics_class
from vocprep.features.exact import Carrier
from vocprep.features.weights import load_weights
from vocprep.options import BuildChoices, BuildOptions, VerifyOptions

pytestmark = pytest.mark.slow

EXACT = BuildChoices(limit_per_split=1, precision="exact")
CARRIERS = {
    "bf16": Carrier(torch.bfloat16),
    "fp32": Carrier(torch.float32),
    "matmul": Carrier(torch.float32, by_matmul=True),
}
CHILD = """
import sys
from pathlib import Path
import torch
from vocprep.building.local import build
from vocprep.features import embed
from vocprep.features.exact import Carrier
from vocprep.options import BuildChoices, BuildOptions

tree, out, weights, threads, dtype, way = sys.argv[1:]
torch.set_num_threads(int(threads))
if dtype != "fastest":
    embed.prove = lambda *_: Carrier(getattr(torch, dtype))
result = build(
    "pascal-context", out=out, data_dir=tree, weights=weights,
    choices=BuildChoices(limit_per_split=1, precision="exact"),
    options=BuildOptions(device="cpu", compiled=way == "compiled"),
)
print(result.index.content_id)
"""
CARRIED = ("bfloat16", "float32")
WAYS = ("eager", "compiled")
ONEDNN = ("SSE41", "AVX2", "AVX512_CORE", "DEFAULT")
ATEN = ("default", "avx2", "")
NO_SIMD = ("1", "")
THREADS = ("1", "2")
# Every value of each, beside others each time; all of their combinations are torture, and so is all
# that is compiled: tests/features/test_exact.py compares the compiled bits of both carriers.
SOME = [
    ("SSE41", "default", "1", "1", "fastest", "eager"),
    ("AVX2", "avx2", "", "2", "float32", "eager"),
    ("AVX512_CORE", "", "1", "2", "bfloat16", "eager"),
    ("DEFAULT", "default", "", "1", "bfloat16", "eager"),
]


@pytest.fixture(scope="module")
def exact(sample_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A version of two images; not to be written to."""
    return build(sample_tree, tmp_path_factory.mktemp("exact") / "out", EXACT)


def build_apart(
    exact: Built, out: Path, onednn: str, aten: str, no_simd: str, threads: str, *words: str
) -> None:
    """Build the version in a process of its own, and require that it is the same."""
    environment = {
        "ONEDNN_MAX_CPU_ISA": onednn,
        "ATEN_CPU_CAPABILITY": aten,
        "JSIMD_FORCENONE": no_simd,
        "OMP_NUM_THREADS": threads,
    }
    tree = exact.plan.data_dir
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(tree), str(out), WEIGHTS, threads, *words],
        env={**os.environ, **{name: value for name, value in environment.items() if value}},
        text=True,
        capture_output=True,
        timeout=500,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    assert child.stdout.strip() == exact.index.content_id, environment


@pytest.mark.parametrize("setting", SOME[:1], ids=" ".join)
def test_another_instruction_set_makes_the_same_version(
    setting: tuple[str, ...], exact: Built, tmp_path: Path
) -> None:
    build_apart(exact, tmp_path / "out", *setting)
    assert version_bytes(tmp_path / "out") == version_bytes(exact.path)


@pytest.mark.parametrize("setting", SOME[1:], ids=" ".join)
def test_other_instruction_sets_threads_and_carriers(
    setting: tuple[str, ...], exact: Built, tmp_path: Path
) -> None:
    build_apart(exact, tmp_path / "out", *setting)


@pytest.mark.torture
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", CARRIED)
def test_every_combination_of_them(dtype: str, way: str, exact: Built, tmp_path: Path) -> None:
    for number, setting in enumerate(product(ONEDNN, ATEN, NO_SIMD, THREADS)):
        build_apart(exact, tmp_path / str(number), *setting, dtype, way)


@pytest.mark.parametrize("carrier", CARRIERS)
def test_every_carrier_makes_the_same_bytes(
    carrier: str, exact: Built, sample_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vocprep.features.embed.prove", lambda *_: CARRIERS[carrier])
    build_plan(make_plan(sample_tree, EXACT), tmp_path / "out", ENGINE)
    assert version_bytes(tmp_path / "out") == version_bytes(exact.path)


def test_the_version_names_no_machine(exact: Built) -> None:
    assert exact.index.short_id.startswith("context460-crop224-resnet32-exact@")
    ((name, value),) = exact.index.numerics_class.items()
    assert (name, value.split(",")[0]) == ("probe", "exact 1")
    card = (exact.path / "README.md").read_text(encoding="utf-8")
    assert "In exact arithmetic every machine makes the same records" in card
    assert torch.__version__ not in card


def test_other_devices_are_of_the_same_class(
    exact: Built, sample_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    gpus = [torch.device("cuda", 0), torch.device("cuda", 1)]  # of two kinds
    assert numerics_class(gpus, "simplejpeg", "exact") == exact.index.numerics_class
    key = BuildKey(plan=make_plan(sample_tree, EXACT), numerics_class=exact.index.numerics_class)
    assert has_same_tools(exact.index, key)

    lock(exact.path, tmp_path / "lock.json")
    reused = BuildOptions(device="cpu", reuse=exact.path)
    result = build_locked(
        tmp_path / "lock.json", out=tmp_path / "out", data_dir=sample_tree, options=reused
    )
    assert (result.reused, result.notes) == (2, ())
    assert diff(exact.path, tmp_path / "out").numerics_class == ()


def test_recomputing_compares_bits(exact: Built, sample_tree: Path) -> None:
    found = recompute(exact.dataset, VerifyOptions(level="recompute", data_dir=sample_tree))
    assert found.report.ok
    assert found.measurements.numerics_class_differences == ()
    assert found.measurements.embeddings.largest_deviation == 0
    assert found.measurements.embeddings_from_fp32 is not None
    # Untrained batch norms say little about the ranges: trained ones are closer (docs/exact.md).
    assert found.measurements.embeddings_from_fp32.smallest_cosine > 0.9


def test_it_is_another_recipe_of_the_same_targets(exact: Built, sample_tree: Path) -> None:
    in_fp32 = make_plan(sample_tree, BuildChoices(limit_per_split=1, precision="fp32"))
    assert in_fp32.recipe.recipe_id != exact.index.recipe_id


def test_it_is_the_default_where_the_backbone_has_it(exact: Built, sample_tree: Path) -> None:
    assert make_plan(sample_tree, BuildChoices(limit_per_split=1)).recipe == exact.index.recipe
    whole = make_plan(sample_tree, BuildChoices(limit_per_split=1, backbone="resnet18-imagenet"))
    assert whole.recipe.precision == "fp32"


@pytest.fixture(scope="module")
def in_fp32(sample_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The same images with what was the default before; not to be written to."""
    choices = BuildChoices(limit_per_split=1, precision="fp32")
    return build(sample_tree, tmp_path_factory.mktemp("fp32") / "out", choices)


def test_how_to_go_on_with_a_version_of_another_precision_is_said(
    in_fp32: Built, sample_tree: Path, tmp_path: Path
) -> None:
    before = version_bytes(in_fp32.path)
    differing = "precision: 'fp32' and 'exact'; add --precision fp32, or"
    with pytest.raises(UsageError, match=f"{differing} choose another --out"):
        build(sample_tree, in_fp32.path, BuildChoices(limit_per_split=1))
    assert version_bytes(in_fp32.path) == before
    with pytest.raises(UsageError, match=f"there and here {differing} leave --reuse out"):
        build(sample_tree, tmp_path / "out", BuildChoices(limit_per_split=1), reuse=in_fp32.path)


def test_weights_without_integers_are_named_before_anything_is_made(
    sample_tree: Path, tmp_path: Path
) -> None:
    weights = load_weights(WEIGHTS, tmp_path)
    path = tmp_path / "huge.safetensors"
    save_file({**weights, "conv1.weight": weights["conv1.weight"] * 1e30}, path)
    with pytest.raises(WeightsError, match=r"huge\.safetensors: weights: what surrounds conv1 is "):
        vocprep.build("pascal-context", data_dir=sample_tree, weights=path, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_pixels_of_a_gpu_decoder_are_refused() -> None:
    with pytest.raises(UsageError, match="'exact' is not defined with decoder 'nvjpeg'"):
        numerics_class([torch.device("cpu")], "nvjpeg", "exact")


def test_backbones_without_it_say_so(exact: Built) -> None:
    whole: Any = {"backbone": "resnet18-imagenet", "windows": (), "layers": ("layer4",)}
    sentence = "'exact' is not defined for resnet18-imagenet, only for resnet32-cifar100"
    with pytest.raises(UsageError, match=sentence):
        replace(exact.index.recipe, **whole)
    with pytest.raises(UsageError, match=sentence):  # before weights are looked for
        BuildChoices(precision="exact", backbone="resnet18-imagenet")
