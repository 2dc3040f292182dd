"""What all compiled code needs."""

from __future__ import annotations

import platform

import pytest

from vocprep.features.compiling import can_compile, compiler_options


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
