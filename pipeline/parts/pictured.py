"""A picture of annotated frames, a row each: the annotation and the answers of sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from datasets.pictures import rgb
from datasets.saliency import Indices
from pipeline.parts.labelled import Labelled
from pipeline.parts.maps import FloatMaps
from pretrain import figures
from pretrain.metrics.keypoints import Points

PICTURES = 6  # frames


@dataclass(frozen=True)
class Column:
    """One source's maps (n, H, W), or keypoints, of the pictured frames."""

    caption: str
    maps: FloatMaps | None = None
    points: Sequence[Points] | None = None

    def picture(self, row: int, frame: figures.Picture, objects: Points | None) -> figures.Picture:
        """The cell of one frame: the frame with keypoints and objects, or the map."""
        if self.points is not None:
            return figures.mark_points(frame, self.points[row], objects)
        assert self.maps is not None, "a column has one of them"
        return figures.heat_map(self.maps[row])


def pictured(
    labelled: Labelled,
    rows: Indices,
    objects: Sequence[Points] | None,
    columns: Sequence[Column],
) -> Image.Image:
    """The annotated frames number `rows`. `objects` are those of all annotated frames; without them
    the annotation is rendered as a map.
    """
    data, nothing = labelled.columns(rows), np.empty((0, 2))
    groups = []
    for row, (index, image) in enumerate(zip(rows.tolist(), data["image"], strict=True)):
        frame, places = rgb(image), None if objects is None else objects[index]
        if places is None:
            truth = figures.heat_map(data["saliency"][row] / 255.0)
            cells = {"frame": frame, "annotation": truth}
        else:
            cells = {"objects": figures.mark_points(frame, nothing, places)}
        cells |= {column.caption: column.picture(row, frame, places) for column in columns}
        groups.append(cells)
    return figures.grid(groups, columns=len(groups[0]))
