"""Sheets of a split's images: photograph, truth, prediction, error and confidence of one run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vocprep.analysis.photographs import Photographs
from vocprep.drawing.labelled import LabelledImage, labelled_sheet
from vocprep.errors import DataError, UsageError
from vocprep.files.ids import FLIP_SUFFIX
from vocprep.heads.predict_image import predict_label_map
from vocprep.heads.runs.class_shares import Decoding
from vocprep.heads.runs.run import Run
from vocprep.shards.reader import ShardDataset
from vocprep.shards.record import Record


@dataclass(kw_only=True, eq=False)
class ExampleSheets:
    """Draws the records of a dataset version as a run labels them."""

    run: Run
    dataset: ShardDataset
    decoding: Decoding
    photographs: Photographs | None
    """Without them, label maps are drawn in plain colours."""
    notes: list[str] = field(default_factory=list)
    """Why photographs are not drawn."""

    @classmethod
    def of(
        cls,
        run: Run,
        dataset: ShardDataset,
        decoding: Decoding,
        data_dir: Path | None,
        manifest: str | Path | None = None,
    ) -> Self:
        """Return the sheets of a run and a version, over the photographs of a data dir.

        ``decoding`` is how the run predicts, ``manifest`` the name or TOML file of the dataset;
        that of the recipe when None.
        """
        if data_dir is None:
            note = "pictures are drawn without photographs, which the shards do not hold; give "
            return cls(
                run=run,
                dataset=dataset,
                decoding=decoding,
                photographs=None,
                notes=[note + "--data-dir"],
            )
        try:
            photographs = Photographs.of(dataset, data_dir, manifest)
        except UsageError as error:
            note = f"pictures are drawn without photographs: {error}"
            return cls(run=run, dataset=dataset, decoding=decoding, photographs=None, notes=[note])
        return cls(run=run, dataset=dataset, decoding=decoding, photographs=photographs)

    def draw(self, record_id: str, title: str) -> Image.Image:
        """Draw one record below a title. Raises what ``ShardDataset.record`` does."""
        record = self.dataset.record(record_id)
        mirrored = None
        if self.decoding.tta == "flip":
            mirrored = self.dataset.record(record_id + FLIP_SUFFIX).embeddings
        found = predict_label_map(
            self.run, record.embeddings, record.grid, mirrored, self.decoding.class_weights
        )
        item = LabelledImage(
            name=record_id,
            image=self._photograph(record),
            truth=record.label_map,
            predicted=found.label_map,
            confidence=found.confidence,
        )
        return labelled_sheet(item, self.dataset.label_space.style, title)

    def _photograph(self, record: Record) -> NDArray[np.uint8] | None:
        if self.photographs is None:
            return None
        try:
            return self.photographs.read(record.image_id, record.image_sha256)
        except DataError as error:
            self.notes.append(f"{record.image_id} is drawn without its photograph: {error}")
            return None
