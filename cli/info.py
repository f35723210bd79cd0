"""slicedet info: what slicedet sees of an image."""

from __future__ import annotations

from typing import Any

import click

from slicedet.models import DEFAULT_MODEL

from .console import Console
from .options import SceneChoice, console_options, scene_options


@click.command()
@click.argument("image")
@click.option(
    "--slice",
    "slice_",
    metavar="PX",
    help=f"Tile size, 640 or 640x512.  [default: that of {DEFAULT_MODEL}, as in predict]",
)
@click.option("--overlap", default="0.25", show_default=True, help="Overlap of tiles, a ratio or 160px.")
@scene_options
@console_options
def info(image: str, slice_: str | None, overlap: str, scenes: SceneChoice, console: Console) -> None:
    """Show what slicedet sees of IMAGE: size, bands, place on the ground, stretch, and the tiles that predict cuts."""
    from slicedet.errors import InvalidSetting
    from slicedet.models import catalogue
    from slicedet.pipeline import Settings, cut, describe

    model = catalogue.find(DEFAULT_MODEL)
    try:
        settings = Settings(slice_ or model.slice or model.input.size, overlap)
    except InvalidSetting as error:
        raise click.UsageError(str(error)) from error
    with scenes.open(image) as scene:
        seen = describe(scene)
        assert settings.slice is not None
        grid = cut(scene, settings.slice, settings, model.gsd)
    seen["tiles"] = {
        "slice": [grid.tile_width, grid.tile_height],
        "frame": [grid.width, grid.height],
        "overlap": overlap,
        "columns": len(grid.columns),
        "rows": len(grid.rows),
        "total": len(grid),
    }
    console.answer(seen)
    for name, text in _lines(seen):
        console.say(f"{name + ':':13}{text}")


def _lines(seen: dict[str, Any]) -> list[tuple[str, str]]:
    tiles, stretch, pixel = seen["tiles"], seen["stretch"], seen["pixel_size_m"]
    bands = (
        "palette, shown as RGB" if seen["palette"] else f"{', '.join(map(str, seen['bands']))} of {seen['band_count']}"
    )
    if stretch:
        ends = "; ".join(f"{low:g} to {high:g}" for low, high in zip(stretch["low"], stretch["high"], strict=True))
        stretch = f"{stretch['rule']} ({ends})"
    resampled = (
        "" if tiles["frame"] == [seen["width"], seen["height"]] else f", resampled to {_size(tiles['frame'])} px"
    )
    lines = [
        ("image", seen["source"]),
        ("format", f"{seen['driver']}, {seen['dtype']}"),
        ("size", f"{seen['width']} x {seen['height']} px"),
        ("bands", bands),
        ("mask", "nodata everywhere" if seen["all_nodata"] else seen["mask"]),
        ("stretch", "unknown" if seen["all_nodata"] else stretch or "none, pixels are taken as they are"),
        ("CRS", seen["crs"] or "none"),
        ("pixel size", f"{pixel[0]:.4g} x {pixel[1]:.4g} m" if pixel else "unknown"),
        (
            "tiles",
            f"{tiles['total']} ({tiles['columns']} x {tiles['rows']}) of {_size(tiles['slice'])} px, "
            f"overlap {tiles['overlap']}{resampled}",
        ),
    ]
    if seen["exif_orientation"] != 1:
        lines.insert(3, ("turned", f"by EXIF orientation {seen['exif_orientation']}"))
    if seen["warped_from_gcps"]:
        lines.insert(3, ("warped", "by its ground control points"))
    return lines


def _size(edges: list[int]) -> str:
    return f"{edges[0]} x {edges[1]}"
