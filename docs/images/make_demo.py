"""Makes demo.jpg, the picture of the README: a part of what `slicedet demo` finds.

python docs/images/make_demo.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from PIL import Image

from slicedet.datasets.synthetic import SceneSettings
from slicedet.demo import demonstrate

PART = (600, 600, 1900, 1400)

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        demonstrate(folder, SceneSettings(4000, 4000, seed=1), lambda what: lambda done, total: None)
        overlay = Image.open(Path(folder) / "scene.overlay.jpg")
        overlay.crop(PART).save(Path(__file__).with_name("demo.jpg"), quality=80)
