"""ONNX graphs that need no training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def constant_graph(
    path: Path, outputs: dict[str, Any], shape: Any = None, pattern: Any = None, size: tuple[int, int] = (64, 64)
) -> Path:
    """An ONNX file that gives the same for all images of a width and height; `pattern` reshapes it to a shape that it
    may not have."""
    from onnx import TensorProto, helper, numpy_helper, save

    nodes = [helper.make_node("ReduceMean", ["image"], ["mean"], keepdims=0)]
    nodes.append(helper.make_node("Mul", ["mean", "zero"], ["nothing"]))
    constants = [numpy_helper.from_array(np.float32(0), "zero")]
    ports = []
    for name, values in outputs.items():
        constants.append(numpy_helper.from_array(np.float32(values), f"{name}_values"))
        nodes.append(helper.make_node("Add", [f"{name}_values", "nothing"], [f"{name}_sum"]))
        if pattern is not None:
            constants.append(numpy_helper.from_array(np.int64(pattern), f"{name}_shape"))
            nodes.append(helper.make_node("Reshape", [f"{name}_sum", f"{name}_shape"], [name]))
        else:
            nodes.append(helper.make_node("Identity", [f"{name}_sum"], [name]))
        ports.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape or np.float32(values).shape))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 3, *size[::-1]))
    graph = helper.make_graph(nodes, "graph", [image], ports, constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    made.ir_version = 8
    save(made, path)
    return path
