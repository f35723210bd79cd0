"""A network from an ONNX file over a large raster, with everything in Python that the command line does.

python examples/onnx_model.py orthomosaic.tif picodet_s_416_coco.onnx
"""

from __future__ import annotations

import sys

import slicedet


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: python examples/onnx_model.py orthomosaic.tif picodet_s_416_coco.onnx")
    image, weights = sys.argv[1:]
    detector = slicedet.load_detector("picodet_s_416_coco", weights=weights, threshold=0.25)
    with slicedet.Scene(image, stretch="percentile:1,99") as scene:
        print(f"{scene.width} x {scene.height} pixels of {scene.pixel_size_m} m")
        prediction = slicedet.predict(
            scene,
            detector,
            overlap=0.25,
            threshold={"*": 0.25, "car": 0.4},
            progress=lambda done, total: print(f"{done} of {total} tiles", file=sys.stderr),
        )
    detections = prediction.detections
    for box, score, category in zip(detections.boxes, detections.scores, detections.category_ids, strict=True):
        print(f"{prediction.categories[category]} {score:.2f} at {box.round(1).tolist()}")
    prediction.save("detections.coco.json", overwrite=True)
    prediction.save("overlay.jpg", overwrite=True)


if __name__ == "__main__":
    main()
