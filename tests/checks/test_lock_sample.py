"""The generated sample is the same data on every machine: manifests/locks/sample.lock.json."""

from __future__ import annotations

from pathlib import Path

import pytest

from vocprep.building.local import build_plan
from vocprep.checks.deviation import EMBEDDING_TOLERANCES
from vocprep.checks.lock import measure_probes, read_lock
from vocprep.checks.remake import RemakeSources, plan_remake
from vocprep.manifests import manifests_dir
from vocprep.options import BuildOptions
from vocprep.shards.version import Version
from vocprep.synthetic.dataset import sample


@pytest.mark.slow
def test_sample_has_the_locked_targets_and_about_the_locked_embeddings(tmp_path: Path) -> None:
    """What encodes its JPEGs may differ from machine to machine, so the files' digests may."""
    lock = read_lock(manifests_dir() / "locks" / "sample.lock.json")
    sample(tmp_path / "data", images=24)
    sources = RemakeSources(data_dir=tmp_path / "data", weights_label=lock.weights)
    plan = plan_remake(lock.recipe, lock.layout, sources)
    out = tmp_path / "out"
    index = build_plan(plan, out, BuildOptions(device="cpu")).index
    assert index.recipe_id == lock.recipe_id
    assert index.targets_id == lock.targets_id
    found = measure_probes(lock, Version.read(out), out)
    assert found.patches == len(lock.probes) == 16
    assert found.within(EMBEDDING_TOLERANCES["fp32"]), found
