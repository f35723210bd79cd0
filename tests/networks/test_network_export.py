"""Networks as static graphs: saved, and run by paddle.inference, they give what the layers give."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

paddle = pytest.importorskip("paddle")

from paddle import inference  # noqa: E402

from slicedet import networks  # noqa: E402


def test_a_saved_graph_gives_what_the_layers_give(tmp_path: Path, fill: Callable[..., None]) -> None:
    """Others are saved, as slicedet exports them, in tests/test_export.py."""
    network, exported = (networks.build("picodet_xs_320_coco_lcnet") for _ in range(2))
    fill(network, 1.5)
    fill(exported, 1.5)
    spec = paddle.static.InputSpec([None, 3, None, None], "float32", "image")
    paddle.jit.save(paddle.jit.to_static(exported, [spec], full_graph=True), str(tmp_path / "model"))
    predictors = [_predictor(tmp_path, onednn) for onednn in (False, True)]
    for batch, height, width in ((1, 192, 320), (2, 96, 64)):
        images = np.random.default_rng(0).random((batch, 3, height, width), "float32")
        with paddle.no_grad():
            expected = [value.numpy() for value in network(paddle.to_tensor(images))]
        for predictor in predictors:
            predictor.get_input_handle("image").copy_from_cpu(images)
            predictor.run()
            outputs = [predictor.get_output_handle(name).copy_to_cpu() for name in predictor.get_output_names()]
            for output, value in zip(outputs, expected, strict=True):
                np.testing.assert_allclose(output, value, atol=1e-3 * np.ptp(value))


def _predictor(folder: Path, onednn: bool) -> inference.Predictor:
    config = inference.Config(str(folder / "model.json"), str(folder / "model.pdiparams"))
    if onednn:
        config.enable_mkldnn()
    else:
        config.disable_mkldnn()
    config.disable_glog_info()
    return inference.create_predictor(config)
