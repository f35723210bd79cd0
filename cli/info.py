"""slicedet info: what slicedet sees of an image."""

from __future__ import annotations

from typing import Any

import click

from .console import Console
from .options import SceneChoice, console_options, scene_options


@click.command()
@click.argument("image")
@click.option("--slice", "slice_", default="640", show_default=True, metavar="PX", help="Tile size, 640 or 640x512.")
@click.option("--overlap", default="0.25", show_default=True, help="Overlap of tiles, a ratio or 160px.")
@scene_options
@console_options
def info(image: str, slice_: str, overlap: str, scenes: SceneChoice, console: Console) -> None:
    """Show what slicedet sees of IMAGE: size, bands, place on the ground, stretch, and its tiles."""
    from slicedet.errors import InvalidSetting
    from slicedet.pipeline import describe
    from slicedet.tiling import TileGrid

    try:
        TileGrid.cover(1, 1, slice_, overlap)
    except InvalidSetting as error:
        raise click.UsageError(str(error)) from error
    with scenes.open(image) as scene:
        seen = describe(scene)
    grid = TileGrid.cover(scene.width, scene.height, slice_, overlap)
    seen["tiles"] = {
        "slice": slice_,
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
            f"{tiles['total']} ({tiles['columns']} x {tiles['rows']}), {tiles['slice']} px, overlap {tiles['overlap']}",
        ),
    ]
    if seen["exif_orientation"] != 1:
        lines.insert(3, ("turned", f"by EXIF orientation {seen['exif_orientation']}"))
    if seen["warped_from_gcps"]:
        lines.insert(3, ("warped", "by its ground control points"))
    return lines
