"""Hash of a model file's graph without its weights (module).

Files of one architecture have the same hash and the same cost, whatever their weights.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import onnx

from edgekit.device.engines.engine import engine_of
from edgekit.device.engines.ncnn_engine import read_ncnn
from edgekit.export.profiling.cost import WEIGHT_TYPES, constant_tensors, load_graph


def structure_of(path: Path) -> str:
    """Return the SHA-256 of a model file's graph without weights; for an .ncnn file, of graph and precision.

    Raises:
        InputError: The file is missing, damaged or of another kind.
    """
    if engine_of(path) != "ncnn":
        return graph_sha256(load_graph(path))
    file = read_ncnn(path)
    precision = "" if file.contract.precision == "float32" else file.contract.precision
    return hashlib.sha256((file.graph + precision).encode()).hexdigest()


def graph_sha256(model: onnx.ModelProto) -> str:
    """Return a SHA-256 of the graph without weight values, producer names and documentation strings."""
    bare = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, graph=model.graph)
    graph = bare.graph
    graph.ClearField("name")
    for documented in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        documented.ClearField("doc_string")
        # torch's exporter stores source paths and line numbers here.
        documented.ClearField("metadata_props")
    biases = _quantized_biases(graph)
    for name, tensor in constant_tensors(graph).items():
        if tensor.data_type in WEIGHT_TYPES or name in biases:
            for field in ("raw_data", "float_data", "int32_data", "double_data", "external_data"):
                tensor.ClearField(field)
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()


def _quantized_biases(graph: onnx.GraphProto) -> set[str]:
    """Return the names of biases of quantised nodes; they are int32, so their type does not identify them."""
    position = {"DequantizeLinear": 0, "QLinearConv": 8, "QGemm": 6}
    return {
        node.input[position[node.op_type]]
        for node in graph.node
        if node.op_type in position and len(node.input) > position[node.op_type]
    }
