"""Memory does not grow with the raster: one larger than what may be used is searched in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio

LIMIT = 1e9
"""Bytes that may be used."""

CHILD = """
import json, re, sys
from pathlib import Path
import slicedet

class Blind:
    categories, input_size = ["spot"], 1000
    def detect(self, tiles):
        self.first = getattr(self, "first", tiles[0])  # The whole scene in one.
        return [slicedet.Detections.empty() for _ in tiles]

detector = Blind()
prediction = slicedet.predict(sys.argv[1], detector, overlap=0, full_image=True)
# Not getrusage: its ru_maxrss begins with the memory of the process that started this one.
peak = 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
print(json.dumps({"peak": peak, "tiles": prediction.run["tiles"], "brightest": int(detector.first.max())}))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to see how much memory was used")
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(("edge", "bands", "dtype"), [(19_000, 3, "uint8"), (23_000, 1, "uint16")])
def test_a_raster_of_more_than_a_gigabyte_is_searched_in_less(tmp_path, edge, bands, dtype):
    assert edge**2 * bands * np.dtype(dtype).itemsize > LIMIT
    path = tmp_path / "sparse.tif"
    shape = {"count": bands, "width": edge, "height": edge, "dtype": dtype}
    storage = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "SPARSE_OK": True}
    with rasterio.open(path, "w", driver="GTiff", **shape, **storage) as dataset:
        bright = np.full((bands, 2048, 2048), np.iinfo(dtype).max // 2, dtype)
        dataset.write(bright, window=rasterio.windows.Window(14_000, 10_000, 2048, 2048))
    done = subprocess.run([sys.executable, "-c", CHILD, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["peak"] < LIMIT
    assert seen["tiles"]["run"] == seen["tiles"]["total"] == (edge // 1000) ** 2 + 1
    assert seen["brightest"] > 0
