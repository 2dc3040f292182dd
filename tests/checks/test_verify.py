"""One call checks a data dir or a dataset version; the command prints what it returns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from builders.progress import RecordedProgress
from builders.versions import Built

from vocprep.checks.lock import lock
from vocprep.checks.verify import verify
from vocprep.errors import DataError, UsageError
from vocprep.options import VerifyOptions

pytestmark = pytest.mark.slow


def test_data_dir_is_told_from_a_version(two_views: Built, sample_tree: Path) -> None:
    content = VerifyOptions(level="content", workers=1)
    of_data_dir = verify(str(sample_tree), content)
    assert [report.level for report in of_data_dir.reports] == ["content"]
    assert of_data_dir.ok
    assert of_data_dir.reports[0].matching == 3 * 12
    of_version = verify(str(two_views.path), content)
    assert [report.level for report in of_version.reports] == ["files", "content"]
    assert of_version.ok
    assert of_version.reports[1].matching == 8


def test_every_task_is_reported_to_its_end(two_views: Built, sample_tree: Path) -> None:
    progress = RecordedProgress()
    options = VerifyOptions(
        level="recompute", data_dir=sample_tree, samples=1, device="cpu", workers=1
    )
    result = verify(two_views.path, options, progress)
    assert [name for name, _, _ in progress.begun] == ["files", "shards", "images"]
    assert progress.shown == sum(total or 0 for _, total, _ in progress.begun)
    assert [report.level for report in result.reports] == ["files", "content", "recompute"]
    assert result.measured is not None
    assert result.measured.embeddings.patches == 98


def test_the_comparison_with_fp32_is_reported_too(crop_hdf5: Built, sample_tree: Path) -> None:
    progress = RecordedProgress()
    options = VerifyOptions(level="recompute", data_dir=sample_tree, samples=1, device="cpu")
    assert verify(crop_hdf5.path, options, progress).ok
    assert progress.begun[2:] == [("images", 12, 0), ("images in fp32", 1, 0)]
    assert progress.shown == sum(total or 0 for _, total, _ in progress.begun)


def test_result_is_plain_json(two_views: Built, sample_tree: Path) -> None:
    options = VerifyOptions(
        level="recompute", data_dir=sample_tree, samples=1, device="cpu", workers=1
    )
    value = verify(two_views.path, options).to_json()
    assert json.loads(json.dumps(value)) == value
    assert value["ok"] is True
    assert value["reports"][0] == {
        "level": "files",
        "ok": True,
        "matching": len(two_views.index.shards) + len(two_views.index.files) + 1,
        "allowed_missing": 0,
        "differences": [],
    }
    assert value["measured"]["embeddings"] == {
        "patches": 98,
        "largest_deviation": 0.0,
        "smallest_cosine": 1.0,
    }
    assert set(value["measured"]["head_outputs"]) == {"class_logits", "mask_logits"}


def test_lock_file_is_a_report_of_its_own(
    two_views: Built, quarantined: Built, tmp_path: Path
) -> None:
    options = VerifyOptions(lock=tmp_path / "x.lock.json")
    lock(two_views.path, tmp_path / "x.lock.json")
    result = verify(two_views.path, options)
    assert [(report.level, report.ok) for report in result.reports] == [
        ("files", True),
        ("lock", True),
    ]
    result = verify(quarantined.path, options)
    assert [(report.level, report.ok) for report in result.reports] == [
        ("files", True),
        ("lock", False),
    ]
    assert result.notes == ("quarantined images: 1, see quarantine.jsonl",)


def test_content_is_not_checked_where_files_differ(copied: Path, sample_tree: Path) -> None:
    (copied / "notes.txt").write_text("x")
    result = verify(copied, VerifyOptions(level="recompute", data_dir=sample_tree))
    assert [report.level for report in result.reports] == ["files"]
    assert not result.ok
    assert "neither content nor lock file was checked" in result.notes[0]
    assert verify(copied).notes == ()


def test_nothing_is_recomputed_where_content_differs(
    two_views: Built, sample_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "vocprep.checks.version_content._check_record", lambda *_: iter(["made up"])
    )
    result = verify(two_views.path, VerifyOptions(level="recompute", data_dir=sample_tree))
    assert [report.ok for report in result.reports] == [True, False]
    assert result.measured is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (VerifyOptions(level="recompute"), "--level recompute is for dataset versions"),
        (VerifyOptions(lock=Path("x.lock.json")), "--lock is for dataset versions"),
    ],
)
def test_options_of_versions_are_refused_for_a_data_dir(
    options: VerifyOptions, said: str, sample_tree: Path
) -> None:
    with pytest.raises(UsageError, match=said):
        verify(sample_tree, options)


def test_folder_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected a data dir or a dataset version, found nothing"):
        verify(tmp_path / "none")


def test_folder_that_is_neither_is_named(tmp_path: Path) -> None:
    for level in ("files", "content", "recompute"):
        with pytest.raises(DataError, match=r"expected a data dir or a dataset version, found an "):
            verify(tmp_path, VerifyOptions(level=level))


def test_a_run_is_no_version_whose_index_is_lost(tmp_path: Path) -> None:
    for name in ("run.json", ".lock"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match="found a run; check the path"):
        verify(tmp_path)


def test_partial_allows_what_is_missing(tree: Path) -> None:
    for path in (tree / "trainval").iterdir():
        path.unlink()
    found = verify(tree, VerifyOptions(level="content", workers=1)).reports[0]
    assert {item.state for item in found.differences} == {"missing"}
    allowed = verify(tree, VerifyOptions(level="content", workers=1, partial=True))
    assert allowed.ok
    assert allowed.reports[0].allowed_missing == len(found.differences) == 12
