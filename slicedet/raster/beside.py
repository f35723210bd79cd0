"""Files read along with an image: world files, masks, overviews, metadata, and the sources of a virtual one."""

from __future__ import annotations

from pathlib import Path

from rasterio.errors import RasterioError

from slicedet.raster.source import is_local, is_remote, open_dataset, quiet

_APPENDED = (".aux.xml", ".msk", ".ovr")
"""To the whole name: `a.tif.ovr`."""


def companions(path: str | Path) -> list[Path]:
    """Where GDAL looks besides the image itself, files that may or may not be there.

    Of a .vrt these are also the sources that are there, of a GDAL name such as NETCDF:a.nc:red the files it stands for;
    none of these if it cannot be read.
    """
    if not is_local(str(path)):
        return files_behind(path)
    path = Path(path)
    names = [path.name + suffix for suffix in _APPENDED]
    if kind := path.suffix[1:]:
        worlds = (f"{kind[0]}{kind[-1]}w", f"{kind}w", "wld")
        names += [path.stem + "." + written for world in worlds for written in (world, world.upper())]
    found = [path.with_name(name) for name in dict.fromkeys(names)]
    if kind.lower() == "vrt":
        found += [each for each in files_behind(path) if each != path and each not in found]
    return found


def files_behind(source: str | Path) -> list[Path]:
    """The local files that an image is read from, as GDAL lists them, with all that virtual ones lead to; none where it
    cannot be read, or lies on a server."""
    found: dict[str, None] = {}
    ahead = [str(source)]
    while ahead:
        names = [name for name in _listed(ahead.pop()) if name not in found]
        found |= dict.fromkeys(names)
        ahead += [name for name in names if name.lower().endswith(".vrt")]
    return [Path(name) for name in found]


def _listed(source: str) -> list[str]:
    if is_remote(source):
        return []
    try:
        with quiet(), open_dataset(source) as dataset:
            return [name for name in dataset.files if not is_remote(name)]
    except RasterioError:
        return []
