"""Prediction: what was found in one scene, with all that is needed to write it down."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from slicedet import outputs
from slicedet.detections import Detections
from slicedet.outputs.layer import Layer

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

    from slicedet.raster.scene import Scene


@dataclass(frozen=True, eq=False)
class Prediction:
    """Detections of one scene.

    detections: boxes in pixels of the scene's native frame, best score first; none where they were handed on as they
    were found. categories: names that category ids index.
    scene: where they were found. model: name of the detector. run: record of the run, ready for JSON.
    views: what the tiles saw, before merging. origins: int64 [views], the detection that each went into, -1 for none.
    """

    detections: Detections
    categories: tuple[str, ...]
    scene: Scene
    model: str
    run: dict[str, Any]
    views: Detections = field(default_factory=Detections.empty)
    origins: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    def views_of(self, index: int) -> Detections:
        """The views, each with its tile, that made the detection at `index`. Raises IndexError where there is none."""
        count = len(self.detections)
        if not -count <= index < count:
            raise IndexError(f"detection {index}: there are {count}")
        return self.views[self.origins == index % count]

    def save(self, path: str | Path, overwrite: bool = False) -> list[Path]:
        """Writes the detections in the format of the suffix, whole or not at all, and returns the files written.

        Raises InvalidSetting for an unknown suffix, NotGeoreferenced where the format needs a place on the ground,
        OutputError where the file is there already (unless `overwrite`), is the image or the region of interest, or
        cannot be written.
        """
        settings = self.run.get("settings", {})
        return outputs.save(self.layer, [self.detections], path, overwrite, settings.get("roi"))

    def to_geopandas(self) -> GeoDataFrame:
        """The detections as polygons with their properties, in the CRS of the scene.

        Raises NotGeoreferenced where the scene has no georeference.
        """
        from slicedet.outputs import table

        return table.to_geopandas(self.layer, self.detections)

    @property
    def layer(self) -> Layer:
        """What all detections share when they are written."""
        skip_unreadable = bool(self.run.get("settings", {}).get("skip_unreadable"))
        return Layer(self.scene, self.categories, self.model, skip_unreadable)
