"""Boxes, labels and a legend drawn on pixels. Knows arrays only: no scene, no files."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from shapely import STRtree, box

from slicedet.detections import Detections
from slicedet.outputs.palette import Colour, colour
from slicedet.outputs.pieces import pieces

Canvas = NDArray[np.uint8]
"""Red, green, blue and alpha, [h, w, 4]."""

Rectangles = NDArray[np.integer]
"""Rectangles x1 y1 x2 y2 on the pixel grid, [N, 4]: pixels x1 to x2 - 1."""

_BLACK: Colour = (0, 0, 0)
_WHITE: Colour = (255, 255, 255)

_LABEL_SHARE = 0.04
"""Share of the picture that labels may cover; beyond it, those of lower scores are left out."""

_LEGEND_ROWS = 16


class Drawing:
    """Detections drawn over a picture of `width` x `height` pixels, window by window.

    Boxes are outlined just outside their pixels, in lines whose width suits the picture and does not drown the objects.
    Labels appear, best scores first, where they cover neither a box nor another label.

    detections: boxes in pixels of the picture. categories: names that their category ids index.
    """

    def __init__(self, detections: Detections, categories: Sequence[str], width: int, height: int) -> None:
        # The best scores come last, on top.
        order = np.argsort(detections.scores, kind="stable")
        self._categories = categories
        self._ids, self._scores = detections.category_ids[order], detections.scores[order]
        self._width, self._height = width, height
        longer = max(width, height)
        sizes = (detections.boxes[:, 2:] - detections.boxes[:, :2]).max(axis=1)
        usual = float(np.median(sizes)) if len(sizes) else longer
        self._line = int(np.clip(min(np.ceil(longer / 1000), usual / 12), 1, 12))
        self._boxes = np.empty((len(order), 4), np.int32)
        for rows in pieces(len(order)):
            self._boxes[rows] = self._on_grid(detections.boxes[order[rows]].astype(np.float64))
        self._writing = _Writing(float(np.clip(min(longer / 80, usual / 2), 11, 40)))
        self._legend_writing = _Writing(float(np.clip(longer / 70, 11, 80)))
        self._labels = self._labels_apart()

    def paint(self, canvas: Canvas, x: int = 0, y: int = 0) -> None:
        """Draws what falls on `canvas`, whose first pixel is pixel x, y of the picture; what is drawn is opaque."""
        height, width = canvas.shape[:2]
        reach = self._line + 1
        window = (x - reach, y - reach, x + width + reach, y + height + reach)
        for i in _touching(self._boxes, *window):
            edge = self._boxes[i] - [x, y, x, y]
            if self._line > 1:
                _frame(canvas, edge + self._line * np.array([-1, -1, 1, 1]), 1, _BLACK)
            _frame(canvas, edge, self._line, colour(int(self._ids[i])))
        for i in _touching(self._labels.places, *window):
            box_number, (left, top) = self._labels.boxes[i], self._labels.places[i, :2]
            patch = self._writing.on_plate(self._text(box_number), colour(int(self._ids[box_number])))
            _paste(canvas, patch, left - x, top - y)

    def paint_legend(self, canvas: Canvas, x: int = 0, y: int = 0) -> None:
        """Draws the number of each class in the corner of the picture with the fewest boxes; otherwise as `paint`."""
        if self._legend_corner is not None:
            left, top = self._legend_corner
            _paste(canvas, self._legend, left - x, top - y)

    def _on_grid(self, boxes: NDArray[np.float64]) -> Rectangles:
        """Boxes on the pixel grid, at least a pixel wide, with room for their lines inside the picture."""
        low, high = np.rint(boxes[:, :2]).astype(np.int64), np.rint(boxes[:, 2:]).astype(np.int64)
        last = np.maximum(np.array([self._width, self._height]) - self._line, self._line + 1)
        low = np.clip(low, self._line, last - 1)
        return np.concatenate([low, np.clip(high, low + 1, last)], axis=1)

    def _text(self, i: int) -> str:
        return f"{self._categories[self._ids[i]]}  {self._scores[i]:.2f}"

    def _places(self, indices: NDArray[np.intp]) -> Rectangles:
        """Where the labels of boxes would be: above the box or, at the top of the picture, below."""
        texts = [self._text(i) for i in indices]
        widths = {text: self._writing.plate_width(text) for text in set(texts)}
        width = np.array([widths[text] for text in texts], np.int64)
        height, boxes = self._writing.plate_height, self._boxes[indices].astype(np.int64)
        left = np.clip(boxes[:, 0] - self._line, 0, np.maximum(self._width - width, 0))
        above = boxes[:, 1] - self._line - height
        top = np.where(above >= 0, above, boxes[:, 3] + self._line)
        return np.stack([left, top, left + width, top + height], axis=1)

    def _labels_apart(self) -> _Labels:
        """The labels that cover neither a box nor a better label, best first, as many as may be."""
        free = np.flatnonzero(self._clear_of_boxes())[::-1]
        kept = _Labels(np.empty(0, np.intp), np.empty((0, 4), np.int64))
        room = _LABEL_SHARE * self._width * self._height
        for rows in pieces(len(free)):
            places = self._places(free[rows])
            clear = np.ones(len(places), bool)
            clear[STRtree(box(*kept.places.T)).query(box(*places.T))[0]] = False
            fresh = np.flatnonzero(clear)
            fresh = fresh[_apart(places[fresh])]
            boxes = np.concatenate([kept.boxes, free[rows][fresh]])
            places = np.concatenate([kept.places, places[fresh]])
            enough = np.cumsum(places[:, 2] - places[:, 0]) * self._writing.plate_height > room
            kept = _Labels(boxes[~enough], places[~enough])
            if enough.any():
                break
        return kept

    def _clear_of_boxes(self) -> NDArray[np.bool_]:
        """Whether the label of each box lies in the picture and covers no box, looked at from top to bottom."""
        clear = np.zeros(len(self._boxes), bool)
        downwards = np.argsort(self._boxes[:, 1], kind="stable")
        for rows in pieces(len(downwards)):
            some = downwards[rows]
            places = self._places(some)
            clear[some] = (places[:, 2] <= self._width) & (places[:, 3] <= self._height)
            tree = STRtree(box(*places.T))
            near = _touching(self._boxes, 0, places[:, 1].min(), self._width, places[:, 3].max())
            for part in pieces(len(near)):
                clear[some[tree.query(box(*self._boxes[near[part]].T))[1]]] = False
        return clear

    @cached_property
    def _legend_corner(self) -> tuple[int, int] | None:
        """Left and top of the legend; None where it has no room."""
        height, width = self._legend.shape[:2]
        gap = height // 20 + 4
        right, bottom = self._width - width - gap, self._height - height - gap
        if min(right, bottom) < gap:
            return None
        corners = [(gap, bottom), (right, bottom), (gap, gap), (right, gap)]
        covered = [len(_touching(self._boxes, left, top, left + width, top + height)) for left, top in corners]
        return corners[int(np.argmin(covered))]

    @cached_property
    def _legend(self) -> Canvas:
        ids, counts = np.unique(self._ids, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        rows = [(f"{self._categories[ids[k]]}  {counts[k]:,}", colour(int(ids[k]))) for k in order[:_LEGEND_ROWS]]
        if len(order) > _LEGEND_ROWS:
            rows.append((f"{len(order) - _LEGEND_ROWS} more  {counts[order[_LEGEND_ROWS:]].sum():,}", _BLACK))
        return self._legend_writing.list(rows or [("no detections", _BLACK)])


class _Labels(NamedTuple):
    """boxes: [K], the box that each label belongs to. places: int64 [K, 4], where it is."""

    boxes: NDArray[np.intp]
    places: Rectangles


class _Writing:
    """Text of one size as opaque patches of pixels."""

    def __init__(self, size: float) -> None:
        self._font = ImageFont.load_default(size)
        self._pad = max(1, round(size / 6))
        self.plate_height = round(size * 1.15) + 2 * self._pad
        self._plates: dict[tuple[str, Colour], Canvas] = {}

    def plate_width(self, text: str) -> int:
        return round(self._font.getlength(text)) + 2 * self._pad

    def on_plate(self, text: str, background: Colour) -> Canvas:
        """The text in black or white, whichever is legible, on a plate of colour."""
        if (text, background) not in self._plates:
            image = Image.new("RGBA", (self.plate_width(text), self.plate_height), (*background, 255))
            ink = _BLACK if np.dot(background, (0.299, 0.587, 0.114)) > 110 else _WHITE
            self._write(ImageDraw.Draw(image), self._pad, 0, text, ink)
            self._plates[text, background] = np.asarray(image)
        return self._plates[text, background]

    def list(self, rows: Sequence[tuple[str, Colour]]) -> Canvas:
        """Rows of text in white on black, each after a swatch of its colour."""
        height, pad = self.plate_height, 2 * self._pad
        width = max(self.plate_width(text) for text, _ in rows) + height + 2 * pad
        image = Image.new("RGBA", (width, len(rows) * height + 2 * pad), (0, 0, 0, 255))
        draw = ImageDraw.Draw(image)
        for number, (text, rgb) in enumerate(rows):
            top, inset = pad + number * height, height // 5
            draw.rectangle((pad, top + inset, pad + height - 2 * inset, top + height - inset), fill=rgb)
            self._write(draw, pad + height, top, text, _WHITE)
        return np.asarray(image)

    def _write(self, draw: ImageDraw.ImageDraw, x: int, y: int, text: str, ink: Colour) -> None:
        draw.text((x, y + self.plate_height / 2), text, fill=ink, font=self._font, anchor="lm")


def _touching(rectangles: Rectangles, left: int, top: int, right: int, bottom: int) -> NDArray[np.intp]:
    """Indices of the rectangles that overlap or touch a window, in their order."""
    x1, y1, x2, y2 = rectangles.T
    return np.flatnonzero((x1 <= right) & (x2 >= left) & (y1 <= bottom) & (y2 >= top))


def _apart(places: Rectangles) -> NDArray[np.intp]:
    """Indices of the rectangles that overlap none kept before them."""
    first, second = STRtree(box(*places.T)).query(box(*places.T))
    later = first < second
    first, second = first[later], second[later]
    order = np.argsort(first, kind="stable")
    first, second = first[order], second[order]
    begins = np.searchsorted(first, np.arange(len(places) + 1))
    kept = np.ones(len(places), bool)
    for i in np.unique(first):
        if kept[i]:
            kept[second[begins[i] : begins[i + 1]]] = False
    return np.flatnonzero(kept)


def _frame(canvas: Canvas, inner: Rectangles, line: int, rgb: Colour) -> None:
    """Lines just outside the rectangle `inner`."""
    x1, y1, x2, y2 = (int(edge) for edge in inner)
    for left, top, right, bottom in (
        (x1 - line, y1 - line, x2 + line, y1),
        (x1 - line, y2, x2 + line, y2 + line),
        (x1 - line, y1, x1, y2),
        (x2, y1, x2 + line, y2),
    ):
        canvas[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = (*rgb, 255)


def _paste(canvas: Canvas, patch: Canvas, x: int, y: int) -> None:
    """Copies the part of `patch` that falls on `canvas` when its first pixel lies at x, y."""
    height, width = canvas.shape[:2]
    x1, y1 = max(x, 0), max(y, 0)
    x2, y2 = min(x + patch.shape[1], width), min(y + patch.shape[0], height)
    if x1 < x2 and y1 < y2:
        canvas[y1:y2, x1:x2] = patch[y1 - y : y2 - y, x1 - x : x2 - x]
