"""Files read along with an image: world files, masks, overviews, metadata, and the sources of a virtual one."""

from __future__ import annotations

from pathlib import Path

import rasterio
from rasterio.errors import RasterioError

from slicedet.raster.source import quiet

_APPENDED = (".aux.xml", ".msk", ".ovr")
"""To the whole name: `a.tif.ovr`."""


def companions(path: str | Path) -> list[Path]:
    """Where GDAL looks besides the image itself, files that may or may not be there.

    Of a .vrt these are also the sources that are there, none if it cannot be read.
    """
    path = Path(path)
    names = [path.name + suffix for suffix in _APPENDED]
    if kind := path.suffix[1:]:
        worlds = (f"{kind[0]}{kind[-1]}w", f"{kind}w", "wld")
        names += [path.stem + "." + written for world in worlds for written in (world, world.upper())]
    found = [path.with_name(name) for name in dict.fromkeys(names)]
    if kind.lower() == "vrt":
        found += [each for each in _sources(path) if each != path and each not in found]
    return found


def _sources(path: Path) -> list[Path]:
    try:
        with quiet(), rasterio.open(path) as dataset:
            return [Path(name) for name in dataset.files]
    except RasterioError:
        return []
