"""Program inside the emulated system: it runs models and marks begin and end of each inference for `counter.c`.

    guest.py SECTIONS SHAPE MODEL ...    # SHAPE may be empty


It runs any .onnx file with ONNX Runtime, and an .ncnn file with edgekit's engine. The marked sections include the
Python code around the engine's call.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

_MARK_BEGIN, _MARK_END = 7001, 7002
_TYPES = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(float16)": np.float16}
_FATAL = 4


def main(sections: int, shape: str, *paths: str) -> None:
    """Run `sections` inferences of each model on noise, one model after the other.

    Dynamic dimensions have size 1 unless `shape` ("1,3,44,44") is given.
    """
    syscall = ctypes.CDLL(None).syscall
    begin, end = ctypes.c_long(_MARK_BEGIN), ctypes.c_long(_MARK_END)
    for path in paths:
        infer = ncnn_inference(path) if path.endswith(".ncnn") else onnx_inference(path, shape)
        for _ in range(sections):
            syscall(begin)
            infer()
            syscall(end)


def ncnn_inference(path: str) -> Callable[[], object]:
    """Return a function that runs the net once on noise."""
    from edgekit.contract import channel_count
    from edgekit.device.engines.ncnn_engine import NcnnEngine

    net = NcnnEngine(Path(path), 1, checked=True)
    spec = net.contract.input
    noise = np.random.default_rng(0).uniform(0, 1, (1, channel_count(spec.channels), *spec.size_hw)).astype(np.float32)
    return lambda: net.infer(noise)


def onnx_inference(path: str, shape: str) -> Callable[[], object]:
    """Return a function that runs the model once on noise."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL
    # The number of instructions of spinning threads depends on time.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (node,) = session.get_inputs()
    dims = (
        [int(size) for size in shape.split(",")]
        if shape
        else [size if isinstance(size, int) else 1 for size in node.shape]
    )
    noise = np.random.default_rng(0).uniform(0, 1, dims)
    image = (noise * 255).astype(np.uint8) if node.type == "tensor(uint8)" else noise.astype(_TYPES[node.type])
    feed = {node.name: image}
    return lambda: session.run(None, feed)


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
