"""A small ncnn net with every kind of layer that exported nets have, and files with changed parts."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import numpy as np

from edgekit.contract import Contract, CropSpec, InputSpec, OutputSpec
from edgekit.device.engines.ncnn_file import MEMBERS, pack_ncnn

SIDE_PX = 9
GRAPH = """7767517
14 17
Input in0 0 1 in0
Convolution stem 1 1 in0 1 0=8 1=3 11=3 4=1 14=1 5=1 6=72 9=1
Split split 1 2 1 2 3
ConvolutionDepthWise dw 1 1 2 4 0=8 1=3 11=3 4=1 14=1 5=1 6=72 7=8 9=3 -23310=2,0.0,6.0
ShuffleChannel shuffle 1 1 4 5 0=2 1=0
Concat cat 2 1 3 5 6 0=0
Slice chunk 1 2 6 7 8 -23300=2,-233,-233 1=0
BinaryOp add 2 1 7 8 9 0=0
Pooling max 1 1 9 10 0=0 1=2 11=2 2=2 12=2 5=1
Split again 1 2 10 11 12
Reduction mean 1 1 11 13 0=3 1=0 -23303=2,1,2 4=1 5=1
BinaryOp mul 2 1 12 13 14 0=2
Reshape flat 1 1 14 15 0=128
InnerProduct head 1 1 15 out0 0=3 1=1 2=384
"""
# The numbers of weights and of biases, for each layer above that has weights.
WEIGHTS = ((72, 8), (72, 8), (384, 3))
CONTRACT = Contract(
    architecture="small",
    labels=("a", "b", "c"),
    input=InputSpec("in0", (SIDE_PX, SIDE_PX), "gray", 1.0, (0.0,), (1.0,)),
    crop=CropSpec(0.0, True, (SIDE_PX, SIDE_PX), (SIDE_PX, SIDE_PX)),
    output=OutputSpec("out0"),
)


def arrays() -> list[np.ndarray]:  # type: ignore[type-arg]
    generator = np.random.default_rng(0)
    return [generator.normal(0, 0.3, size).astype(np.float32) for sizes in WEIGHTS for size in sizes]


def weights() -> bytes:
    values = arrays()
    return b"".join(struct.pack("<I", 0) + a.tobytes() + b.tobytes() for a, b in zip(*[iter(values)] * 2, strict=True))


def write(path: Path, contract: str | None = None, graph: str | None = None, content: bytes | None = None) -> Path:
    """Write a file without any check."""
    members = (
        contract or CONTRACT.to_json(),
        GRAPH if graph is None else graph,
        weights() if content is None else content,
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, member in zip(MEMBERS, members, strict=True):
            archive.writestr(name, member)
    return path


def good(path: Path) -> Path:
    path.write_bytes(pack_ncnn(CONTRACT, GRAPH, weights()))
    return path
