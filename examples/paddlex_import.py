"""A program for PaddleX with its import changed, and `slice` added: small objects in large images are found.

python examples/paddlex_import.py big.tif exported/
"""

from __future__ import annotations

import sys

from slicedet import create_model


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: python examples/paddlex_import.py big.tif exported/")
    image, folder = sys.argv[1:]
    model = create_model(model_dir=folder, slice=640, overlap=0.25)
    for result in model.predict(image, batch_size=1, threshold=0.4):
        print(f"{len(result['boxes'])} objects in {result['input_path']}")
        result.save_to_img("output/")
        result.save_to_json("output/found.json")
        # What PaddleX does not have: where they are on the ground.
        if result.prediction.scene.georeference is not None:
            result.prediction.save("output/found.geojson", overwrite=True)


if __name__ == "__main__":
    main()
