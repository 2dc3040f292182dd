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

from vocprep.building.local import build_plan
from vocprep.building.plan import BuildKey
from vocprep.building.resume import has_same_tools
from vocprep.checks.diff import diff
from vocprep.checks.lock import lock
from vocprep.checks.recompute import recompute
from vocprep.checks.remake import build_locked
from vocprep.errors import UsageError
from vocprep.features.devices import numerics_class
from vocprep.features.exact import Carrier
from vocprep.options import BuildChoices, BuildOptions, VerifyOptions

EXACT = BuildChoices(limit=1, precision="exact")
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

tree, out, weights, dtype, threads, compiled = sys.argv[1:]
torch.set_num_threads(int(threads))
if dtype != "fastest":
    embed.prove = lambda *_: Carrier(getattr(torch, dtype))
result = build(
    "pascal-context", out=out, data_dir=tree, weights=weights,
    choices=BuildChoices(limit=1, precision="exact"),
    options=BuildOptions(device="cpu", compiled=compiled == "compiled"),
)
print(result.index.content_id)
"""
OLDEST = {
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "ATEN_CPU_CAPABILITY": "default",
    "JSIMD_FORCENONE": "1",
    "OMP_NUM_THREADS": "1",
}


@pytest.fixture(scope="module")
def exact(sample_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A version of two images; not to be written to."""
    return build(sample_tree, tmp_path_factory.mktemp("exact") / "out", EXACT)


def build_apart(
    tree: Path, out: Path, environment: dict[str, str], *words: str
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tree), str(out), WEIGHTS, *words],
        env={**os.environ, **environment},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def content_id_of(process: subprocess.Popen[str]) -> str:
    printed, errors = process.communicate(timeout=500)
    assert process.returncode == 0, errors
    return printed.strip()


def test_another_instruction_set_makes_the_same_version(
    exact: Built, sample_tree: Path, tmp_path: Path
) -> None:
    process = build_apart(sample_tree, tmp_path / "out", OLDEST, "fastest", "1", "eager")
    assert content_id_of(process) == exact.index.content_id
    assert version_bytes(tmp_path / "out") == version_bytes(exact.path)


@pytest.mark.torture
@pytest.mark.parametrize("way", ["eager", "compiled"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_every_instruction_set_and_number_of_threads(
    dtype: str, way: str, exact: Built, sample_tree: Path, tmp_path: Path
) -> None:
    sets = product(
        ("SSE41", "AVX2", "AVX512_CORE", "DEFAULT"), ("default", "avx2", ""), ("", "1"), ("1", "2")
    )
    for number, (onednn, aten, no_simd, threads) in enumerate(sets):
        environment = {"ONEDNN_MAX_CPU_ISA": onednn, "OMP_NUM_THREADS": threads}
        environment |= {"ATEN_CPU_CAPABILITY": aten} if aten else {}
        environment |= {"JSIMD_FORCENONE": no_simd} if no_simd else {}
        out = tmp_path / str(number)
        process = build_apart(sample_tree, out, environment, dtype, threads, way)
        assert content_id_of(process) == exact.index.content_id, environment


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
    in_fp32 = make_plan(sample_tree, BuildChoices(limit=1))
    assert in_fp32.recipe.recipe_id != exact.index.recipe_id
    assert in_fp32.recipe.precision == "fp32"


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
