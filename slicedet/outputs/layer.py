"""Layer: what all detections in one file share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from slicedet.errors import NotGeoreferenced

if TYPE_CHECKING:
    from slicedet.raster.georeference import Georeference
    from slicedet.raster.scene import Scene


@dataclass(frozen=True, eq=False)
class Layer:
    """scene: where they were found. categories: names that category ids index. model: name of the detector.
    skip_unreadable: whether what cannot be decoded was left out."""

    scene: Scene
    categories: tuple[str, ...]
    model: str
    skip_unreadable: bool = False

    @property
    def georeference(self) -> Georeference:
        """Where the scene lies. Raises NotGeoreferenced where it does not say."""
        if self.scene.georeference is None:
            raise NotGeoreferenced(
                f"{self.scene.source}: has no georeference, so its detections have no place on a map"
            )
        return self.scene.georeference
