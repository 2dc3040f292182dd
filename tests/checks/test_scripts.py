"""Library calls in a script of one's own, whose main module child processes import again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CALL = "vocprep.verify({tree!r}, vocprep.VerifyOptions(level='content', workers=2))"


@pytest.mark.slow
def test_script_without_a_main_guard_is_told_so(sample_tree: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    patched = "import vocprep, vocprep.checks.data_content as c; c._BATCH = 2\n"
    script.write_text(patched + CALL.format(tree=str(sample_tree)))
    found = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    said = found.stderr.splitlines()[-1]
    assert said.startswith("vocprep.errors.DataError: a process that decodes files ended early")
    assert "if __name__ == '__main__'" in said
