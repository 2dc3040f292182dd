"""The page about an audit: the likeliest label errors with their pictures, worst first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from vocprep.analysis.photographs import Photographs
from vocprep.auditing.planted import Kind
from vocprep.auditing.result import ERRORS, AuditedPicture, AuditResult, read_audit
from vocprep.errors import DataError, UsageError
from vocprep.files.writing import check_output_file, json_bytes, write_atomic
from vocprep.pages.report.page import Page, Section, render, section, table
from vocprep.pages.report.versions.pictures import Gallery
from vocprep.shards.reader import ShardDataset
from vocprep.storage.places import Place

_SUFFIXES = (".json", ".csv", ".html")
_MOST_PICTURES = 60
"""Of a page, so that it stays small enough to send."""


def check_targets(outs: Sequence[Path]) -> None:
    """Raise UsageError, before there is work to lose, where an audit cannot be written."""
    if len(set(outs)) < len(outs):
        raise UsageError("--out: expected different files, found one of them twice")
    for out in outs:
        if out.suffix not in _SUFFIXES:
            raise UsageError(
                f"--out {out}: expected a name that ends in {', '.join(_SUFFIXES[:2])} or "
                f"{_SUFFIXES[2]}, which says what is written"
            )
        check_output_file(out)
        if out.suffix == ".json" and out.exists():
            _check_is_audit(out)


def _check_is_audit(out: Path) -> None:
    """Raise UsageError where another file, such as one of the version, would be replaced."""
    try:
        read_audit(out)
    except DataError as error:
        raise UsageError(
            f"--out {out}: expected a new file or an earlier audit, found another file, which "
            "would be replaced; give another name"
        ) from error


def write_audit(
    result: AuditResult,
    outs: Sequence[Path],
    shards: Place,
    data_dir: Path | None = None,
    manifest: str | None = None,
) -> None:
    """Write an audit to files, by their suffixes as JSON, CSV or HTML."""
    for out in outs:
        if out.suffix == ".json":
            write_atomic(out, json_bytes(result.to_json()))
        elif out.suffix == ".csv":
            write_atomic(out, result.to_csv().encode())
        else:
            dataset = ShardDataset.open(shards)
            photographs = data_dir and Photographs.of(dataset, data_dir, manifest)
            page = audit_page(result, dataset, photographs or None)
            write_atomic(out, page.render().encode())


def audit_page(result: AuditResult, dataset: ShardDataset, photographs: Photographs | None) -> Page:
    """Return the page of an audit of a version."""
    return Page(
        title=f"Labels of {dataset.index.recipe.dataset}",
        lead=result.short_id,
        sections=tuple(audit_sections(result, dataset, photographs)),
    )


def audit_sections(
    result: AuditResult, dataset: ShardDataset, photographs: Photographs | None
) -> list[Section]:
    """Return the sections of an audit; DataError where it is one of another version."""
    if result.content_id != dataset.content_id:
        raise DataError(
            f"audit of {result.short_id}: expected one of {dataset.index.short_id}, the version in "
            f"{dataset.path}; run vocprep audit on it"
        )
    gallery = Gallery(space=dataset.label_space, photographs=photographs, components=None)
    shown = result.listed[:_MOST_PICTURES]
    kinds = Counter(p.suspected for p in result.pictures if p.suspected)
    return [
        section(
            "label-errors",
            "Likely label errors",
            "audit_pictures.html",
            result=result,
            suspected=sum(kinds.values()),
            kinds=_kinds_table(kinds),
            rows=[_row(picture, dataset, gallery) for picture in shown],
            more=_list_table(result.listed[_MOST_PICTURES:]),
        ),
        section(
            "void-outliers",
            "Far more void than usual",
            "audit_void.html",
            pictures=_void_table(result.pictures),
        ),
    ]


def _row(
    picture: AuditedPicture, dataset: ShardDataset, gallery: Gallery
) -> tuple[str, list[object], Markup]:
    record = dataset.record(picture.id)
    panels: list[object] = []
    if gallery.photographs is not None:
        panels.append(gallery.single(record, "photograph"))
    panels.append(gallery.labels(record, "label map", picture.patches))
    words = render("audit_words.html", picture=picture, errors=ERRORS)
    return picture.id, panels, words


def _kinds_table(kinds: Counter[Kind]) -> Markup | None:
    if not kinds:
        return None
    rows = [(ERRORS[kind], count) for kind, count in kinds.most_common()]
    return table("What is suspected", ("error", "pictures"), rows)


def _list_table(pictures: Sequence[AuditedPicture]) -> Markup | None:
    if not pictures:
        return None
    rows = [(p.id, p.split, f"{p.quality:.2f}", p.suspected, p.given, p.believed) for p in pictures]
    head = ("picture", "split", "quality", "suspected", "labels", "model")
    return table("Further pictures", head, rows)


def _void_table(pictures: Sequence[AuditedPicture]) -> Markup | None:
    found = sorted((p for p in pictures if p.void_outlier), key=lambda p: (-p.void_percent, p.id))
    if not found:
        return None
    rows = [(p.id, p.split, p.void_percent) for p in found[:_MOST_PICTURES]]
    return table("Pictures by void", ("picture", "split", "void %"), rows)
