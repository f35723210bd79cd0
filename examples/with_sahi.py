"""SAHI's own functions around a slicedet detector.

python examples/with_sahi.py photo.jpg picodet_s_416_coco.onnx
"""

from __future__ import annotations

import sys

from sahi.predict import get_sliced_prediction

from slicedet.detectors.sahi import SlicedetModel


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: python examples/with_sahi.py photo.jpg picodet_s_416_coco.onnx")
    image, weights = sys.argv[1:]
    model = SlicedetModel(
        model_path="picodet_s_416_coco", options={"weights": weights}, confidence_threshold=0.3, device="cpu"
    )
    result = get_sliced_prediction(image, model, slice_height=416, slice_width=416, verbose=0)
    print(f"{len(result.object_prediction_list)} objects")


if __name__ == "__main__":
    main()
