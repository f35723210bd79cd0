"""DetResult: what was found in one image, with PaddleX's keys, file names and ways to save it."""

from __future__ import annotations

import io
import json
import time
from collections import UserDict
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slicedet.compat.inputs import TIFF, Image, file_name, read_whole
from slicedet.detections import Detections
from slicedet.outputs.files import check_apart, staged, write_errors
from slicedet.outputs.overlay import picture
from slicedet.prediction import Prediction

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

# In the class, `str` is a property of results.
Text = str
Target = str | Path
Content = dict[str, Any]

_BY_OUTPUTS = (".jpg", ".jpeg", ".png", *TIFF)
_BY_PILLOW = {".bmp": "BMP", ".dib": "DIB", ".webp": "WEBP", ".pbm": "PPM", ".pgm": "PPM", ".ppm": "PPM", ".pnm": "PPM"}

_numbers = count(1000)


class DetResult(UserDict[str, Any]):
    """A mapping with the keys of PaddleX's result.

    input_path: as it was given, for a file in a folder its path; None for an array.
    page_index: of a TIFF, from 0; None for all else.
    input_img: uint8 BGR [H, W, 3], read when it is asked for; raises InvalidSetting where it is too large for that.
    boxes: list of {"cls_id": int, "label": str, "score": float, "coordinate": [x1, y1, x2, y2]} in pixels, clipped to
    the image, by class, best score first.

    `prediction` is the same as slicedet's Prediction, for GeoJSON and all else. Boxes changed by the user are saved and
    drawn as changed; `prediction` stays.
    """

    def __init__(self, image: Image, prediction: Prediction) -> None:
        super().__init__()
        self.prediction = prediction
        self._made_up_name = ""
        self.data = {
            "input_path": image.input_path,
            "page_index": image.page_index,
            "input_img": None,
            "boxes": _boxes(prediction),
        }

    def __getitem__(self, key: Text) -> Any:
        if key == "input_img" and self.data[key] is None:
            with self.prediction.scene as scene:
                self.data[key] = np.ascontiguousarray(read_whole(scene)[..., ::-1])
        return super().__getitem__(key)

    @property
    def json(self) -> dict[Text, Content]:
        """{"res": {input_path, page_index, boxes}}, ready for JSON."""
        boxes = [{**box, "coordinate": list(box["coordinate"])} for box in self["boxes"]]
        return {"res": {"input_path": self["input_path"], "page_index": self["page_index"], "boxes": boxes}}

    @property
    def str(self) -> dict[Text, Content]:
        """The same as `json`, to be printed."""
        return self.json

    @property
    def img(self) -> dict[Text, Picture]:
        """{"res": the image in RGB with its boxes}, fitted to 8192 pixels a side."""
        with self.prediction.scene:
            changed = self._as_changed()
            return {"res": picture(changed.layer, changed.detections, transparency=False)}

    def print(self, json_format: bool = False, indent: int = 4, ensure_ascii: bool = False) -> None:
        """Prints `str`, or `json` as JSON."""
        print(json.dumps(self.json, indent=indent, ensure_ascii=ensure_ascii) if json_format else self.str)

    def save_to_json(self, save_path: Target, indent: int = 4, ensure_ascii: bool = False) -> None:
        """Writes input_path, page_index and boxes to `save_path`, a .json file, or a folder that gets NAME_res.json.

        Overwrites what is there. Raises OutputError where it cannot be written.
        """
        target = self._target(save_path, (".json",), ".json")
        with staged(target, overwrite=True) as path:
            path.write_text(json.dumps(self.json["res"], indent=indent, ensure_ascii=ensure_ascii), encoding="utf-8")

    def save_to_img(self, save_path: Target) -> None:
        """Writes the image with its boxes to `save_path`, an image file, or a folder that gets NAME_res with the suffix
        of the input, or .png where that cannot be written.

        A .tif has all pixels, and the georeference; others are fitted to 8192 pixels a side.
        Overwrites what is there, but for the input itself. Raises OutputError where it cannot be written.
        """
        known = (*_BY_OUTPUTS, *_BY_PILLOW)
        own = Path(self._name()).suffix
        target = self._target(save_path, known, own if own.lower() in known else ".png")
        scene, format = self.prediction.scene, _BY_PILLOW.get(target.suffix.lower())
        if format is None:
            with scene:
                self._as_changed().save(target, overwrite=True)
            return
        check_apart(target, scene)
        encoded = io.BytesIO()
        self.img["res"].save(encoded, format)
        with staged(target, overwrite=True) as path:
            path.write_bytes(encoded.getvalue())

    def save_all(self, save_path: Target) -> None:
        """Writes JSON and image to a folder."""
        self.save_to_json(save_path)
        self.save_to_img(save_path)

    def _as_changed(self) -> Prediction:
        """The prediction with the boxes as they are now."""
        boxes = self["boxes"]
        detections = Detections(
            np.array([box["coordinate"] for box in boxes], np.float32),
            np.array([box["score"] for box in boxes], np.float32),
            np.array([box["cls_id"] for box in boxes], np.int32),
        )
        return replace(self.prediction, detections=detections)

    def _target(self, save_path: Target, suffixes: tuple[Text, ...], suffix: Text) -> Path:
        """The file that `save_path` means, in a folder that is there."""
        path = Path(save_path)
        if path.suffix.lower() not in suffixes:
            path = path / f"{Path(self._name()).stem}_res{suffix}"
        with write_errors(path, path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _name(self) -> Text:
        """The name from which those of files are made; an array's is the time and a number."""
        if self["input_path"] is None:
            self._made_up_name = self._made_up_name or f"{int(time.time())}_{next(_numbers)}"
            return self._made_up_name
        name = Path(file_name(self["input_path"]))
        return name.name if self["page_index"] is None else f"{name.stem}_{self['page_index']}{name.suffix}"


def _boxes(prediction: Prediction) -> list[Content]:
    found = prediction.detections
    found = found[np.lexsort((-found.scores, found.category_ids))]
    return [
        {"cls_id": id, "label": prediction.categories[id], "score": score, "coordinate": box}
        for id, score, box in zip(found.category_ids.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True)
    ]
