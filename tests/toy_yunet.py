"""A file with the inputs and outputs of YuNet whose faces are the white cells of 32 x 32 pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

STRIDES_PX = (8, 16, 32)
HEADS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
# In cells: eyes, nose and corners of the mouth of an upright face.
LANDMARKS_XY = (0.3, 0.35, 0.7, 0.35, 0.5, 0.55, 0.35, 0.75, 0.65, 0.75)
BIASES = {"bbox": (0.5, 0.5, 0.0, 0.0), "kps": LANDMARKS_XY}
# Of one pixel of the net's input: each output value is one convolution of its cell.
MACS_PER_PX = 3 * len(STRIDES_PX) * sum(HEADS.values())


def save_toy_yunet(path: Path, height: int | str, width: int | str) -> Path:
    """Write the file; names instead of numbers make the input size free."""
    nodes, weights, outputs = [], [], []
    for head, size in HEADS.items():
        weights.append(numpy_helper.from_array(np.array([1, -1, size]), f"flat_{head}"))
        for stride in STRIDES_PX:
            name = f"{head}_{stride}"
            sees = head in ("cls", "obj") and stride == STRIDES_PX[-1]
            kernel = np.full((size, 3, stride, stride), 1 / (255 * 3 * stride**2) if sees else 0, np.float32)
            bias = np.array(BIASES.get(head, (0.0,)), np.float32)
            weights += [numpy_helper.from_array(kernel, f"{name}_w"), numpy_helper.from_array(bias, f"{name}_b")]
            inputs = ["input", f"{name}_w", f"{name}_b"]
            nodes += [
                helper.make_node("Conv", inputs, [f"{name}_map"], strides=[stride] * 2, kernel_shape=[stride] * 2),
                helper.make_node("Transpose", [f"{name}_map"], [f"{name}_cells"], perm=[0, 2, 3, 1]),
                helper.make_node("Reshape", [f"{name}_cells", f"flat_{head}"], [name]),
            ]
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, None, size]))
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, height, width])
    graph = helper.make_graph(nodes, "toy", [image], outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path
