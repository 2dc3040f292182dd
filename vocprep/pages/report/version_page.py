"""The page about a dataset version."""

from __future__ import annotations

from vocprep.pages.report.options import ReportOptions
from vocprep.pages.report.page import Page, Section, section
from vocprep.progress import Progress
from vocprep.shards.reader import ShardDataset


def version_page(dataset: ShardDataset, options: ReportOptions, progress: Progress) -> Page:
    """Return the page about one dataset version."""
    index = dataset.index
    return Page(
        title=f"Dataset version: {index.recipe.dataset}",
        lead=index.short_id,
        sections=(_identity(dataset),),
    )


def _identity(dataset: ShardDataset) -> Section:
    return section("identity", "Identity", "version_identity.html", index=dataset.index)
