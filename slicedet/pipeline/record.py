"""What is written down of a run: the scene, and the versions of what took part."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np

from slicedet.errors import EmptyImage
from slicedet.raster.scene import Scene


def describe(scene: Scene) -> dict[str, Any]:
    """What slicedet sees of a scene: size, bands, stretch and place on the ground, ready for JSON."""
    place = scene.georeference
    try:
        stretch, empty = scene.stretch, False
    except EmptyImage:
        stretch, empty = None, True
    return {
        "source": scene.source,
        "driver": scene.driver,
        "width": scene.width,
        "height": scene.height,
        "dtype": scene.dtype,
        "band_count": scene.band_count,
        "bands": list(scene.band_numbers),
        "palette": scene.has_palette,
        "mask": scene.mask,
        "all_nodata": empty,
        "stretch": None if stretch is None else {"rule": stretch.rule, "low": stretch.low, "high": stretch.high},
        "exif_orientation": scene.exif_orientation,
        "crs": None if place is None or place.crs is None else place.crs.to_string(),
        "transform": None if place is None else list(place.transform[:6]),
        "warped_from_gcps": scene.from_gcps,
        "pixel_size_m": scene.pixel_size_m,
    }


def versions() -> dict[str, str]:
    """The versions of Python, NumPy, rasterio and GDAL."""
    import rasterio

    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "rasterio": rasterio.__version__,
        "gdal": rasterio.__gdal_version__,
    }
