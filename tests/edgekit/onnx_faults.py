"""Damaged and hostile ONNX files, and a program that passes them to the commands.

The program writes one file per seed and calls `inspect`, `profile`, `run` and `verify` on it, in one process with
limited memory. It prints the calls that did not end with one error line; a crash ends the whole program.

    python -m tests.edgekit.onnx_faults FOLDER FIRST COUNT
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekit.cli import main as edgekit
from edgekit.contract import METADATA_KEY, Contract, CropSpec, InputSpec, OutputSpec

MEMORY_BYTES = 3 << 30
LABELS = ("red", "green", "blue")
_HUGE = (1 << 20, 1 << 31, 1 << 40, (1 << 62) + 1, (1 << 63) - 1)
_SIDE_PX = 12


def good_model() -> onnx.ModelProto:
    """Return a small classifier with a contract and with the kinds of layers that edgekit's nets have."""
    generator = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(generator.normal(0, 0.3, shape).astype(np.float32), name)

    node = helper.make_node
    nodes = [
        node("Conv", ["input", "w0", "b0"], ["c0"], name="stem", pads=[1] * 4, kernel_shape=[3, 3]),
        node("Relu", ["c0"], ["r0"], name="relu"),
        node("MaxPool", ["r0"], ["p0"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["p0", "w1"], ["c1"], name="grow", pads=[1] * 4, kernel_shape=[3, 3]),
        node("Concat", ["p0", "c1"], ["cat"], name="cat", axis=1),
        node("BatchNormalization", ["cat", "scale", "bias", "mean", "var"], ["n"], name="norm"),
        node("GlobalAveragePool", ["n"], ["g"], name="mean"),
        node("Reshape", ["g", "shape"], ["f"], name="flat"),
        node("Gemm", ["f", "w2", "b2"], ["logits"], name="head", transB=1),
    ]
    tensors = [
        weight("w0", 8, 3, 3, 3),
        weight("b0", 8),
        weight("w1", 4, 8, 3, 3),
        weight("w2", 3, 12),
        weight("b2", 3),
    ]
    tensors += [
        numpy_helper.from_array(np.full(12, value, np.float32), name)
        for name, value in (("scale", 1), ("bias", 0), ("mean", 0), ("var", 1))
    ]
    tensors.append(numpy_helper.from_array(np.array([-1, 12], np.int64), "shape"))
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, _SIDE_PX, _SIDE_PX])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    size_hw = (_SIDE_PX, _SIDE_PX)
    contract = Contract(
        "small",
        LABELS,
        InputSpec("input", size_hw, "rgb", 1 / 255, (0.0,) * 3, (1.0,) * 3),
        CropSpec(0.0, False, size_hw, size_hw),
        OutputSpec("logits"),
    )
    helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    return model


def _huge_weight(model: onnx.ModelProto, choice: random.Random) -> None:
    tensor = choice.choice(model.graph.initializer)
    if tensor.dims:
        tensor.dims[choice.randrange(len(tensor.dims))] = choice.choice((*_HUGE, -1, 0))


def _other_type(model: onnx.ModelProto, choice: random.Random) -> None:
    choice.choice(model.graph.initializer).data_type = choice.choice([0, 2, 3, 7, 8, 10, 11, 14, 16, 17, 22, 99])


def _short_weight(model: onnx.ModelProto, choice: random.Random) -> None:
    tensor = choice.choice(model.graph.initializer)
    tensor.raw_data = tensor.raw_data[: choice.randrange(len(tensor.raw_data))]


def _outside(model: onnx.ModelProto, choice: random.Random) -> None:
    tensor = choice.choice(model.graph.initializer)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    place = choice.choice(
        ["/etc/passwd", "../../../../etc/passwd", "beside.bin", "", "/dev/zero", "/proc/self/mem", "."]
    )
    for key, value in (
        ("location", place),
        ("offset", str(choice.choice([0, -1, 1 << 62]))),
        ("length", str(choice.choice([1, *_HUGE]))),
    ):
        tensor.external_data.add(key=key, value=value)


def _other_node(model: onnx.ModelProto, choice: random.Random) -> None:
    kinds = [
        "Conv",
        "Gemm",
        "MatMul",
        "Reshape",
        "Resize",
        "Tile",
        "Expand",
        "If",
        "Loop",
        "Pad",
        "Nonesuch",
        "Slice",
        "Identity",
        "Softmax",
        "ConstantOfShape",
    ]
    choice.choice(model.graph.node).op_type = choice.choice(kinds)


def _other_attribute(model: onnx.ModelProto, choice: random.Random) -> None:
    node = choice.choice([node for node in model.graph.node if node.attribute])
    attribute = choice.choice(node.attribute)
    value = choice.choice([0, -1, 1 << 20, 1 << 40, (1 << 63) - 1])
    if attribute.ints and choice.random() < 0.7:
        attribute.ints[choice.randrange(len(attribute.ints))] = value
    elif choice.random() < 0.5:
        attribute.i = value
    else:
        attribute.type = choice.choice([1, 2, 3, 4, 6, 7, 8])


def _other_wiring(model: onnx.ModelProto, choice: random.Random) -> None:
    names = [name for node in model.graph.node for name in (*node.input, *node.output)]
    node = choice.choice(model.graph.node)
    side = choice.choice([node.input, node.output])
    side[choice.randrange(len(side))] = choice.choice([*names, "", "nowhere"])


def _other_input(model: onnx.ModelProto, choice: random.Random) -> None:
    value = choice.choice([*model.graph.input, *model.graph.output])
    dims = value.type.tensor_type.shape.dim
    if choice.random() < 0.2:
        value.type.tensor_type.elem_type = choice.choice([0, 2, 7, 8, 10, 99])
    elif choice.random() < 0.2:
        del dims[choice.randrange(len(dims)) :]
    else:
        dims[choice.randrange(len(dims))].dim_value = choice.choice((*_HUGE, 0, -1, 2))


def _grown(model: onnx.ModelProto, choice: random.Random) -> None:
    """Insert a node that needs a few bytes in the file and gigabytes or more for its output."""
    size = choice.choice(_HUGE)
    sizes = {"Tile": [1, 1, size, size], "Expand": [size, 3, _SIDE_PX, _SIDE_PX], "ConstantOfShape": [size, size]}
    kind = choice.choice(list(sizes))
    model.graph.initializer.append(numpy_helper.from_array(np.array(sizes[kind], np.int64), "size"))
    inputs = ["size"] if kind == "ConstantOfShape" else ["input", "size"]
    model.graph.node.insert(0, helper.make_node(kind, inputs, ["grown"]))
    if choice.random() < 0.5:
        model.graph.node[1].input[0] = "grown"


def let_grow(model: onnx.ModelProto, size_bytes: int) -> None:
    """Give the first convolution an input of `size_bytes`."""
    batch = size_bytes // (4 * 3 * _SIDE_PX * _SIDE_PX)
    model.graph.initializer.append(numpy_helper.from_array(np.array([batch, 1, 1, 1], np.int64), "size"))
    model.graph.node.insert(0, helper.make_node("Expand", ["input", "size"], ["grown"]))
    model.graph.node[1].input[0] = "grown"


def _other_version(model: onnx.ModelProto, choice: random.Random) -> None:
    if choice.random() < 0.5:
        model.opset_import[0].version = choice.choice([-1, 0, 1, 7, 99, 1 << 40])
    else:
        model.ir_version = choice.choice([-1, 0, 1, 99, 1 << 40])
    if choice.random() < 0.3:
        model.opset_import[0].domain = "nowhere"


def _other_contract(model: onnx.ModelProto, choice: random.Random) -> None:
    document = json.loads(model.metadata_props[0].value)
    key = choice.choice(list(document))
    document[key] = choice.choice([None, 1e308, -1, [], {}, "x" * 5000, [[]], True])
    model.metadata_props[0].value = json.dumps(document)


def _nested(model: onnx.ModelProto, choice: random.Random) -> None:
    graph = helper.make_graph([helper.make_node("Identity", ["input"], ["x"])], "inner", [], [])
    for _ in range(choice.choice([1, 30])):
        outer = helper.make_node("If", ["input"], ["x"], then_branch=graph, else_branch=graph)
        graph = helper.make_graph([outer], "inner", [], []) if len(graph.SerializeToString()) < 1 << 20 else graph
    model.graph.node.extend(graph.node)


CHANGES: tuple[Callable[[onnx.ModelProto, random.Random], None], ...] = (
    _huge_weight,
    _other_type,
    _short_weight,
    _outside,
    _other_node,
    _other_attribute,
    _other_wiring,
    _other_input,
    _grown,
    _other_version,
    _other_contract,
    _nested,
)


def changed(seed: int) -> bytes:
    """Return the bytes of a damaged file; each seed below `len(CHANGES)` applies another kind of change."""
    choice = random.Random(seed)  # noqa: S311 (no secret)
    model = good_model()
    if seed < len(CHANGES):
        CHANGES[seed](model, choice)
        return model.SerializeToString()
    if seed % 4:
        for _ in range(choice.choice([1, 1, 2])):
            choice.choice(CHANGES)(model, choice)
        return model.SerializeToString()
    content = bytearray(model.SerializeToString())
    if choice.random() < 0.3:
        return bytes(content[: choice.randrange(len(content))])
    for _ in range(choice.choice([1, 2, 8])):
        content[choice.randrange(len(content))] = choice.randrange(256)
    return bytes(content)


def call(*arguments: object) -> tuple[object, str]:
    """Return exit code and stderr of a command in this process, including the output of C libraries."""
    sys.argv = ["edgekit", *map(str, arguments)]
    code: object = None
    before = os.dup(2)
    with tempfile.TemporaryFile("w+", errors="replace") as captured:
        os.dup2(captured.fileno(), 2)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                edgekit()
        except SystemExit as ended:
            code = ended.code
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)
        captured.seek(0)
        return code, captured.read()


def draw(folder: Path) -> Path:
    """Write a data set of three noise images and return its folder."""
    for number, label in enumerate(LABELS):
        file = folder / "data" / "test" / label / "0.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (_SIDE_PX, _SIDE_PX, 3), np.uint8)
        if not cv2.imwrite(str(file), noise):
            sys.exit(f"cannot write '{file}'")
    return folder / "data"


def commands(path: Path, reference: Path, data: Path) -> tuple[tuple[object, ...], ...]:
    """Return the commands to run on a file."""
    return (
        ("inspect", path),
        ("profile", path),
        ("run", "--model", path, "--source", reference.with_suffix(".png"), "--detector", "none", "-q"),
        ("verify", path, "--against", reference, "--data", data, "--split", "test"),
    )


def main(folder: Path, first: int, count: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    reference = folder / "good.onnx"
    onnx.save(good_model(), reference)
    data = draw(folder)
    (folder / "good.png").write_bytes((data / "test/red/0.png").read_bytes())
    path = folder / "changed.onnx"
    for words in commands(reference, reference, data):
        code, err = call(*words)
        if code:
            sys.exit(f"the undamaged file: {words[0]} failed: {err}")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES,) * 2)
    faults, refused = [], 0
    for seed in range(first, first + count):
        path.write_bytes(changed(seed))
        for words in commands(path, reference, data):
            (folder / "at").write_text(f"{seed} {words[0]}")
            started_s = time.monotonic()
            code, err = call(*words)
            took_s = time.monotonic() - started_s
            refused += code in (2, 3, 75)
            if code not in (0, 2, 3, 75) or (code and len(err.splitlines()) != 1) or "internal" in err or took_s > 60:
                faults.append(f"{seed} {words[0]} {code} {took_s:.0f} s: {err[:300]!r}")
    print(
        json.dumps(
            {"faults": faults, "refused": refused, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10}
        ),
        flush=True,
    )
    os._exit(0)


def with_document(model: Path, target: Path, document: str | None) -> Path:
    """Write `model` with another contract document, or without one."""
    proto = onnx.load(model)
    del proto.metadata_props[:]
    if document is not None:
        helper.set_model_props(proto, {METADATA_KEY: document})
    onnx.save(proto, target)
    return target


def one_row() -> onnx.ModelProto:
    """Return a model that returns the mean of all its images as one row."""
    model = good_model()
    model.graph.node[-1].output[0] = "rows"
    model.graph.node.append(helper.make_node("ReduceMean", ["rows", "axis"], ["logits"], keepdims=1))
    model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "axis"))
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "rows"
    return model


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
