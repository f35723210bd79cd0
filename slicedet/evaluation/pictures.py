"""Pictures of hits, misses and false alarms on an image."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from slicedet.evaluation.evaluating import Evaluation
from slicedet.outputs.palette import COLOURS, Colour

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

    from slicedet.raster.scene import Scene

LONGEST_SIDE = 4096
"""Pixels to which pictures are fitted."""

_FALSE_ALARM, _HIT, _MISS = COLOURS[0], COLOURS[1], COLOURS[2]
_CROWD: Colour = (160, 160, 160)


def save(path: Path, scene: Scene, evaluation: Evaluation, index: int) -> None:
    """Writes a JPEG of the image at `index` of the dataset, as it looks at the threshold asked for.

    Hits and false alarms are outlined as they were detected, misses as they were annotated. False alarms bear their
    score, and all that is wrong its class where there are several.
    """
    from PIL import Image, ImageDraw

    shrink = max(1.0, max(scene.width, scene.height) / LONGEST_SIDE)
    size = (max(1, round(scene.width / shrink)), max(1, round(scene.height / shrink)))
    pixels, _ = scene.read_masked((0, 0, scene.width, scene.height), size)
    line = max(1, round(max(size) / 1200))
    text = float(np.clip(max(size) / 100, 11, 32))
    head = round(text * 1.7)
    picture = Image.new("RGB", (size[0], size[1] + head))
    picture.paste(Image.fromarray(pixels), (0, head))
    pen = _Pen(ImageDraw.Draw(picture), text, head, np.array([size[0] / scene.width, size[1] / scene.height] * 2))

    point, by_class = evaluation.at_threshold, evaluation.average_precision.by_class
    truth, results, matches = point.truth, point.results, point.matches
    several = sum(figures.objects > 0 for figures in by_class.values()) > 1
    names = [name if several else "" for name in evaluation.classes.names]
    objects, detections = truth.image_indices == index, results.image_indices == index
    pen.outline(truth.boxes[objects & truth.crowd], _CROWD, line)
    pen.outline(results.boxes[detections & matches.hit], _HIT, line)
    missed, false = objects & matches.missed, detections & matches.false_alarm
    # Around false alarms, which may lie on an object of another class.
    pen.outline(truth.boxes[missed], _MISS, 3 * line)
    pen.outline(results.boxes[false], _FALSE_ALARM, line)
    for box, number in zip(truth.boxes[missed], truth.category_ids[missed], strict=True):
        pen.name(box, _MISS, 3 * line, names[number], below=True)
    found = results[false]
    for box, number, score in zip(found.boxes, found.category_ids, found.scores, strict=True):
        pen.name(box, _FALSE_ALARM, line, f"{names[number]} {score:.2f}".strip())
    counts = point.by_image[index]
    pen.legend(scene.name, f"{counts.hits} found", f"{counts.misses} missed", f"{counts.false_alarms} false alarms")
    # Through memory, since Pillow does not tell when the last of a JPEG does not fit on the disk.
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=88, subsampling=0)
    path.write_bytes(encoded.getvalue())


class _Pen:
    """Draws on a picture that has a line of text `head` pixels high above it; `scale` takes boxes to its pixels."""

    def __init__(self, draw: ImageDraw, text: float, head: int, scale: NDArray[np.float64]) -> None:
        from PIL import ImageFont

        self._draw, self._head, self._scale = draw, head, scale
        self._font = ImageFont.load_default(text)
        self._text = text

    def outline(self, boxes: NDArray[np.float64], colour: Colour, width: int) -> None:
        """Lines just outside the boxes."""
        for start, end in self._edges(boxes, width):
            self._draw.rectangle((*start, *end), outline=colour, width=width)

    def name(self, box: NDArray[np.float64], colour: Colour, width: int, label: str, below: bool = False) -> None:
        """A label above or below a box outlined in lines of this width, or in it where there is no room."""
        ((start, end),) = self._edges(box[None], width)
        if below:
            place, anchor = (start[0], end[1] + 2), "la"
        elif start[1] - 2 - self._text >= self._head:
            place, anchor = (start[0], start[1] - 2), "ls"
        else:
            place, anchor = (start[0] + width + 2, max(start[1], self._head) + width + 2), "la"
        self._draw.text((max(place[0], 2), place[1]), label, colour, self._font, anchor, stroke_width=1, stroke_fill=0)

    def _edges(self, boxes: NDArray[np.float64], width: int) -> Iterator[tuple[list[float], list[float]]]:
        """First and last pixels of rectangles around the boxes that are `width` pixels larger."""
        low = np.rint(boxes[:, :2] * self._scale[:2]) - np.array([width, width - self._head])
        high = np.rint(boxes[:, 2:] * self._scale[2:]) + np.array([width - 1, self._head + width - 1])
        return zip(low.tolist(), np.maximum(high, low).tolist(), strict=True)

    def legend(self, name: str, found: str, missed: str, false: str) -> None:
        """What the colours mean, and the name of the image."""
        self._draw.rectangle((0, 0, self._draw.im.size[0], self._head - 1), (0, 0, 0))
        x, middle, side = self._head / 3, self._head / 2, self._head / 4
        for text, colour in ((found, _HIT), (missed, _MISS), (false, _FALSE_ALARM)):
            self._draw.rectangle((x, middle - side, x + 2 * side, middle + side), colour)
            self._draw.text((x + 3 * side, middle), text, (255, 255, 255), self._font, "lm")
            x += 5 * side + self._draw.textlength(text, self._font)
        self._draw.text((x + 2 * side, middle), name, _CROWD, self._font, "lm")
