"""The model file of a fit: the backbone's graph with classifier and distance; of device/, only this module needs onnx.

The graph is extended by a few nodes on the features: square roots, scaled to one length, times the classifier's weights
(output `logits`) and times the vectors of the classes (output `distance`). The net itself stays as it is.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgekit import __version__
from edgekit.contract import (
    METADATA_KEY,
    SCHEMA_VERSION,
    Contract,
    CropSpec,
    DistanceSpec,
    InputSpec,
    OutputSpec,
    Provenance,
    Subject,
)
from edgekit.device.engines.classifier import Classifier, portrait_crops
from edgekit.device.teach.fit import Fit
from edgekit.device.teach.linear import LEAST_LENGTH
from edgekit.errors import GateError, InputError
from edgekit.files import atomic_path, check_writable, write_atomic
from edgekit.model_store import ONNX_SUFFIX

if TYPE_CHECKING:
    from edgekit.device.teach.embed import Embedder

_LOGITS, _DISTANCE = "logits", "distance"
_TOLERANCE = 1e-3


def write_model(
    fit: Fit,
    path: Path,
    embedder: Embedder,
    *,
    dataset: str = "own pictures",
    region: tuple[float, float, float, float] | None = None,
) -> Contract:
    """Write the model of a fit to the .onnx file `path`, and return its contract.

    Args:
        fit: The fit, of features of `embedder`.
        path: The file; an existing one is replaced at once, so that a reader sees the old or the new file.
        embedder: What computed the features.
        dataset: Name of the pictures in the contract.
        region: The part of a camera's frame that the pictures show, see `Contract.region`.

    Raises:
        InputError: The file does not end in .onnx, or its folder does not exist.
        GateError: The file computes other values than the fit; `path` is left unchanged.
        StorageError: The file cannot be written.
    """
    check_output(path)
    contract = taught_contract(fit, embedder, dataset, region)
    with atomic_path(path) as temporary:
        temporary.write_bytes(taught_graph(fit, embedder, contract).SerializeToString(deterministic=True))
        _verify(fit, temporary, embedder)  # before it takes the place of an existing file
    return contract


def _verify(fit: Fit, path: Path, embedder: Embedder) -> None:
    """Compare the file's probabilities and distances on crops of a portrait with those of the fit.

    Raises:
        GateError: They differ.
    """
    crops = portrait_crops(embedder.contract)
    features = embedder.crop_features(crops)
    probabilities, distances = Classifier(path).outputs(crops)
    assert distances is not None  # every taught model returns them
    for what, found, expected in (
        ("probabilities", probabilities, fit.probabilities(features)),
        ("distances", distances, fit.distances(features)),
    ):
        difference = float(np.abs(found - expected).max())
        if not difference <= _TOLERANCE:  # also true for NaN
            raise GateError(f"the {what} of the written file differ by {difference:.1e}: report this as an error")


def check_output(path: Path) -> None:
    """Check that a model can be written to `path`.

    Raises:
        InputError: The file does not end in .onnx.
        StorageError: Its folder is not writable.
    """
    if path.suffix != ONNX_SUFFIX:
        raise InputError(f"output '{path}' must end in '{ONNX_SUFFIX}': rename it")
    check_writable(path)


def taught_contract(
    fit: Fit, embedder: Embedder, dataset: str, region: tuple[float, float, float, float] | None
) -> Contract:
    """Return the contract of the file of a fit: that of the embedder, with the fit's labels and outputs.

    `dataset` is the name of the pictures, `region` the part of a camera's frame that they show.
    """
    source = embedder.contract
    return replace(
        source,
        labels=fit.classes,
        input=replace(source.input, sizes_px=()),  # one size only, see `taught_graph`
        output=OutputSpec(_LOGITS),
        temperature=fit.temperature,
        uncertain_below=0.0,  # the distance decides instead
        region=region,
        distance=DistanceSpec(_DISTANCE, fit.threshold),
        provenance=Provenance(dataset, source.provenance.checkpoint_sha256, edgekit_version=__version__),
        schema=SCHEMA_VERSION,  # that of the source may be older
    )


def taught_graph(fit: Fit, embedder: Embedder, contract: Contract) -> onnx.ModelProto:
    """Return the graph of the features with the nodes of a fit: the classifier's logits and the distance.

    The nodes compute what `direction`, `LinearFit.logits` and `Novelty.distances` compute in numpy.
    """
    model = face_features(embedder.path) if embedder.subject == "face" else onnx.load(embedder.path)
    graph = model.graph
    features = graph.output[0].name
    # The backbone accepts several input sizes; the new model has one.
    for dimension, side_px in zip(graph.input[0].type.tensor_type.shape.dim[2:], contract.input.size_hw, strict=True):
        dimension.dim_value = side_px
    constants: dict[str, NDArray[Any]] = {
        "taught.least": np.array(LEAST_LENGTH, np.float32),
        "taught.axes": np.array([1], np.int64),
        "taught.one": np.array(1, np.float32),
        "taught.weight": fit.linear.weight,  # (classes, features)
        "taught.bias": fit.linear.bias,
        "taught.vectors": fit.novelty.vectors.T,  # (features, vectors)
    }
    for name, values in constants.items():
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
    # The direction is the square roots of the features, scaled to length 1. The distance is 1 minus the largest cosine
    # with a taught vector.
    nodes: list[tuple[str, list[str], str, dict[str, Any]]] = [  # operator, inputs, output, attributes
        ("Relu", [features], "taught.positive", {}),
        ("Sqrt", ["taught.positive"], "taught.roots", {}),
        ("ReduceL2", ["taught.roots", "taught.axes"], "taught.length", {"keepdims": 1}),
        ("Max", ["taught.length", "taught.least"], "taught.divisor", {}),
        ("Div", ["taught.roots", "taught.divisor"], "taught.direction", {}),
        ("Gemm", ["taught.direction", "taught.weight", "taught.bias"], _LOGITS, {"transB": 1}),
        ("MatMul", ["taught.direction", "taught.vectors"], "taught.nearness", {}),
        ("ReduceMax", ["taught.nearness", "taught.axes"], "taught.nearest", {"keepdims": 0}),
        ("Sub", ["taught.one", "taught.nearest"], _DISTANCE, {}),
    ]
    for operator, inputs, output, attributes in nodes:
        graph.node.append(helper.make_node(operator, inputs, [output], output, **attributes))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(_LOGITS, TensorProto.FLOAT, ["batch", len(contract.labels)]))
    graph.output.append(helper.make_tensor_value_info(_DISTANCE, TensorProto.FLOAT, ["batch"]))
    return _finished(model, contract)


def face_features(path: Path) -> onnx.ModelProto:
    """Return a classifier of faces without its last layer: a model that returns this layer's input, the features.

    Raises:
        InputError: The last layer is not a linear one.
    """
    model = onnx.load(path)
    graph = model.graph
    last = next(node for node in graph.node if node.output[0] == graph.output[0].name)
    if last.op_type != "Gemm":
        raise InputError(f"model '{path}' does not end in a linear layer: teach with another model")
    features, *parameters = last.input  # weight and bias
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    # The weight is (features, classes) or (classes, features), with more features than classes.
    width = max(tensors[parameters[0]].dims)
    graph.node.remove(last)
    for name in parameters:
        graph.initializer.remove(tensors[name])
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(features, TensorProto.FLOAT, ["batch", width]))
    document = next(entry.value for entry in model.metadata_props if entry.key == METADATA_KEY)
    # Features have neither labels nor probabilities that could be too low.
    contract = replace(
        Contract.from_json(document), labels=(), output=OutputSpec(features, meaning="features"), uncertain_below=0.0
    )
    return _finished(model, contract)


def write_untaught(path: Path, subject: Subject) -> None:
    """Write a model with the only label "nothing taught yet", for a run in which a user begins to teach.

    Its logit is always 0: the mean of the image times a weight of 0.
    """
    side_hw = (32, 32)
    contract = Contract(
        architecture="untaught",
        labels=("nothing taught yet",),
        input=InputSpec("image", side_hw, "rgb", scale=1.0, mean=(0.0,) * 3, std=(1.0,) * 3),
        crop=CropSpec(margin=0.0, grayscale=False, resize_hw=side_hw, center_crop_hw=side_hw),
        output=OutputSpec(_LOGITS),
        subject=subject,
    )
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight"], [_LOGITS]),
    ]
    graph = helper.make_graph(
        nodes,
        "untaught",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, *side_hw])],
        [helper.make_tensor_value_info(_LOGITS, TensorProto.FLOAT, ["batch", 1])],
        [numpy_helper.from_array(np.zeros((3, 1), np.float32), "weight")],
    )
    # Versions that onnxruntime 1.20 reads; the installed onnx may write newer ones by default.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    write_atomic(path, _finished(model, contract).SerializeToString(deterministic=True))


def _finished(model: onnx.ModelProto, contract: Contract) -> onnx.ModelProto:
    """Set the contract of a model, check the model with `onnx.checker`, and return it.

    The shapes of intermediate tensors are removed, because they are those of the backbone's input size.
    """
    del model.graph.value_info[:]
    helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    onnx.checker.check_model(model, full_check=True)
    return model
