"""What all compiled code needs."""

from __future__ import annotations

import platform

import pytest
import torch

from vocprep.errors import UsageError
from vocprep.features.compiling import can_compile, compiler_options
from vocprep.features.embed import EmbeddingSpec, require_compilable


@pytest.mark.skipif(not can_compile(), reason="no C++ compiler here")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="instruction sets of x86-64")
def test_the_instruction_set_is_part_of_what_compiled_code_is_kept_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = []
    for capability in ("default", "avx2"):
        monkeypatch.setenv("ATEN_CPU_CAPABILITY", capability)
        options.append(compiler_options())
    assert options == [{"cpp.simdlen": 0}, {"cpp.simdlen": 256}]


@pytest.mark.skipif(not can_compile(), reason="no C++ compiler here")
def test_what_would_have_other_bits_on_a_gpu_is_not_compiled_there() -> None:
    gpu = torch.device("cuda")
    with pytest.raises(UsageError, match=r"'bf16' is not compiled on a GPU.*leave --compile out"):
        require_compilable(EmbeddingSpec(precision="bf16"), gpu)
    require_compilable(EmbeddingSpec(precision="bf16"), torch.device("cpu"))
    require_compilable(EmbeddingSpec(precision="exact"), gpu)  # which compares them
