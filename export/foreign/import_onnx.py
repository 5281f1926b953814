"""`edgekit import MODEL.onnx`: attach a contract to an ONNX classifier that another program has exported.

    imported = edgekit.import_onnx("yolo11n-cls.onnx", "mine.onnx")
    imported.contract.labels, imported.notes

The graph gets a dynamic batch, images as (N, channels, height, width) and logits as output, where it lacks them. The
results are compared with those of the file before the new one is written. The module needs `onnx`, but not torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from edgekit import __version__
from edgekit.contract import (
    METADATA_KEY,
    Channels,
    Contract,
    CropSpec,
    InputSpec,
    OutputSpec,
    Provenance,
    channel_count,
)
from edgekit.device.engines.classifier import Classifier
from edgekit.device.engines.session import has_contract, open_session, run_session
from edgekit.errors import EdgekitError, InputError, warn
from edgekit.export.foreign.import_options import ImportOptions
from edgekit.export.foreign.stated import Stated, assumed, read_stated
from edgekit.files import atomic_path, check_replaces_none, check_writable
from edgekit.model_store import ONNX_SUFFIX
from edgekit.preprocess import CROP_MARGIN, FloatArray, ImageU8, softmax, to_input
from edgekit.text import one_line

# The usual scale, mean and standard deviation, of R, G, B.
_IMAGENET = (1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_BATCH = "batch"
_TRIAL_IMAGES = 3
# Smaller probabilities are raised to this before the logarithm.
_LEAST_PROBABILITY = 1e-12
_TOLERANCE = 1e-3
_INPUT_TYPES: dict[str, Literal["float32", "uint8"]] = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}


@dataclass(frozen=True)
class Imported:
    """The contract of a new file; `notes` are lines about what was assumed or changed."""

    contract: Contract
    notes: tuple[str, ...]


def import_onnx(
    model: str | Path,
    output: str | Path,
    labels: Sequence[str] | None = None,
    options: ImportOptions | None = None,
    notify: Callable[[str], None] = warn,
) -> Imported:
    """Write an ONNX classifier with a contract to `output`.

    Args:
        model: The file. Statements of Ultralytics, OpenVINO's Model API and timm's config.json are read.
        output: The new .onnx file.
        labels: The classes in the order of the outputs; None: those that the file states.
        options: What else the file does not state.
        notify: Called with each warning.

    Raises:
        InputError: The file is no image classifier, something that it does not state is missing, or an option does
            not fit.
        StorageError: `output` cannot be written.

    Example:
        >>> edgekit.import_onnx("resnet18.onnx", "flowers.onnx", labels=["daisy", "rose", "tulip"])
    """
    options = options or ImportOptions()
    model, output = Path(model), Path(output)
    if output.suffix != ONNX_SUFFIX:
        raise InputError(f"output '{output}' must end in '{ONNX_SUFFIX}': rename it")
    check_replaces_none(output, [model])
    check_writable(output)
    session = open_session(model, intra_op_threads=1, level="none")
    if has_contract(session, model):
        raise InputError(f"model '{model}' has a contract already: use it as it is")
    notes: list[str] = []
    stated = read_stated(dict(session.get_modelmeta().custom_metadata_map), model)
    if stated.by:
        notes.append(f"described by {stated.by}")
    contract, channels_last = _contract(session, model, stated, tuple(labels) if labels else None, options)
    if line := assumed(stated, options, contract.input):
        notes.append(line)
    height, width = contract.input.size_hw
    if height != width:
        notify(f"model '{model}' takes images of {width}x{height} pixels: each image is squashed to this shape")
    before = _trial_outputs(session, model, contract, channels_last)
    if before.shape[1] != len(contract.labels):
        raise InputError(
            f"model '{model}' has {before.shape[1]} outputs, but {len(contract.labels)} labels: give one label per "
            "output (--labels)"
        )
    gives_probabilities = bool((before >= 0).all() and np.allclose(before.sum(axis=1), 1, atol=_TOLERANCE))
    expected = before if gives_probabilities else softmax(before)
    # `session` does not list its nodes, so the file is read again.
    is_quantized = any(node.op_type == "DequantizeLinear" for node in onnx.load(model).graph.node)
    contract = replace(contract, precision="int8" if is_quantized else "float32")
    _write(model, output, contract, channels_last, gives_probabilities, expected)
    if gives_probabilities:
        notes.append("its outputs are probabilities: the new file returns their logarithms")
    return Imported(contract, tuple(notes))


def _write(
    model: Path, output: Path, contract: Contract, channels_last: bool, gives_probabilities: bool, expected: FloatArray
) -> None:
    """Write the new file if it returns the probabilities `expected` for the trial images; see `_rewritten`.

    The shapes of Reshape nodes are changed only in the second attempt, because only some files need it.
    """
    with atomic_path(output) as temporary:
        for frees_reshapes in (False, True):
            rewritten = _rewritten(onnx.load(model), contract, channels_last, gives_probabilities, frees_reshapes)
            temporary.write_bytes(rewritten)
            reason = _difference(temporary, expected)
            if not reason:
                return  # `output` gets the content of `temporary`
        raise InputError(
            f"model '{model}' cannot classify several images at once ({reason}): export it with a dynamic batch, "
            "such as dynamic=True or dynamic_axes"
        )


def _contract(
    session: ort.InferenceSession, path: Path, stated: Stated, labels: tuple[str, ...] | None, options: ImportOptions
) -> tuple[Contract, bool]:
    """Return the contract of a file, and whether it takes images in the layout NHWC instead of NCHW.

    What neither an option nor the file states is assumed; `assumed` names it for the user.
    """
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type not in _INPUT_TYPES:
        found = ", ".join(f"{node.type} {node.shape}" for node in inputs)
        raise InputError(
            f"model '{path}' has the inputs {found}: expected one of float32 or uint8, (N, channels, height, width)"
        )
    labels = labels or stated.labels
    if labels is None:
        raise InputError(f"model '{path}' does not state its classes: give --labels A,B,C, or a .txt file of them")
    node, shape = inputs[0], inputs[0].shape  # a dynamic axis is a name instead of a number
    channels_last = shape[1] not in (1, 3) and shape[3] in (1, 3)
    channel_axis, graph_hw = (shape[3], shape[1:3]) if channels_last else (shape[1], shape[2:4])
    default_channels: Channels = "gray" if channel_axis == 1 else stated.channels or "rgb"
    channels = options.channels or default_channels
    if isinstance(channel_axis, int) and channel_axis != channel_count(channels):
        raise InputError(f"model '{path}' has {channel_axis} channels, not those of '{channels}': change --channels")
    size_hw = _input_hw(path, graph_hw, options.image_size or stated.size_px)
    scale, mean, std = _normalisation(path, stated, options, channels, node.type)
    # An image is resized to more than the input size, so that the centre crop keeps `crop_share` of each side.
    resize_hw = (round(size_hw[0] / stated.crop_share), round(size_hw[1] / stated.crop_share))
    margin = CROP_MARGIN if options.subject == "face" else 0.0
    fit = options.fit or stated.fit or "square"
    return Contract(
        architecture=path.stem,
        labels=labels,
        input=InputSpec(node.name, size_hw, channels, scale, mean, std, element_type=_INPUT_TYPES[node.type]),
        crop=CropSpec(margin, grayscale=channels == "gray", resize_hw=resize_hw, center_crop_hw=size_hw, fit=fit),
        output=OutputSpec(outputs[0].name),
        subject=options.subject,
        provenance=Provenance(edgekit_version=__version__),
    ), channels_last


def _input_hw(path: Path, graph_hw: list[int | str | None], size_px: int | None) -> tuple[int, int]:
    """Return height and width of the input: those of the graph, and `size_px` for a dynamic side.

    A given `size_px` must be one of them.
    """
    sides = [side if isinstance(side, int) else size_px for side in graph_hw]  # a dynamic side is a name or None
    height, width = sides
    if height is None or width is None:
        raise InputError(f"model '{path}' takes images of any size: give --image-size")
    if size_px is not None and size_px not in sides:
        raise InputError(f"model '{path}' takes images of {height}x{width} pixels, not {size_px}: change --image-size")
    return height, width


def _normalisation(
    path: Path, stated: Stated, options: ImportOptions, channels: Channels, input_type: str
) -> tuple[float, tuple[float, ...], tuple[float, ...]]:
    """Return scale, mean and standard deviation: those of the options, else of the file, else the usual ones."""
    mean, std = options.mean, options.std
    if (mean is None) != (std is None):
        raise InputError("--mean (mean=) and --std (std=) belong together: give both")
    if mean is not None and std is not None:
        if input_type == "tensor(uint8)":
            raise InputError(f"model '{path}' takes pixels of 0 to 255 and normalises them: remove --mean and --std")
        are_for_0_to_255 = max(*mean, *std) > 1  # and not for pixels of 0 to 1
        return (1.0 if are_for_0_to_255 else 1 / 255), mean, std
    if stated.values is not None:
        return stated.values
    # ImageNet's values are for colour. A uint8 model normalises the pixels in its graph.
    if channels == "gray" or input_type == "tensor(uint8)":
        count = channel_count(channels)
        return 1 / 255, (0.0,) * count, (1.0,) * count
    return _IMAGENET


def _trial_images(contract: Contract) -> ImageU8:
    """Return random crops: uint8 (N, H, W, 1 or 3)."""
    shape = (_TRIAL_IMAGES, *contract.input.size_hw, channel_count(contract.input.channels))
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def _trial_outputs(session: ort.InferenceSession, path: Path, contract: Contract, channels_last: bool) -> FloatArray:
    """Return what the foreign file returns for the trial images, one image at a time: float32 (N, classes).

    A file with a fixed batch size receives copies of the image; the first row of its output is used.
    """
    tensors = np.asarray(to_input(_trial_images(contract), contract.input))
    if channels_last:
        tensors = np.ascontiguousarray(np.moveaxis(tensors, 1, -1))
    batch_axis = session.get_inputs()[0].shape[0]
    batch_size = batch_axis if isinstance(batch_axis, int) else 1
    rows = []
    for tensor in tensors:
        try:
            batch = np.repeat(tensor[None], batch_size, axis=0)
            (values,) = run_session(session, path, [contract.output.name], {contract.input.name: batch})
        except EdgekitError:  # too little memory: has its own message
            raise
        except Exception as error:  # onnxruntime's exceptions have no common base class
            raise InputError(f"model '{path}' fails in inference: {one_line(str(error))}") from error
        rows.append(np.asarray(values, np.float32).reshape(batch_size, -1)[0])
    return np.stack(rows)


def _rewritten(
    model: onnx.ModelProto, contract: Contract, channels_last: bool, gives_probabilities: bool, frees_reshapes: bool
) -> bytes:
    """Return the content of the new file: the foreign graph with a contract, and with edgekit's input and output.

    The input are NCHW images with a dynamic batch, the output are logits (N, classes).

    Args:
        model: The graph of the foreign file, which is changed in place.
        contract: The contract of the new file.
        channels_last: Whether the foreign file takes NHWC images.
        gives_probabilities: Whether it returns probabilities, whose logarithms are then the logits.
        frees_reshapes: Whether the batch size in constant shapes of Reshape nodes is replaced, too.
    """
    graph = model.graph
    name, output = contract.input.name, contract.output.name
    if frees_reshapes:
        _free_reshapes(graph)
    _append_logits(graph, output, gives_probabilities)
    if channels_last:
        _rename(graph, name, f"{name}/last")
        graph.node.insert(0, helper.make_node("Transpose", [name], [f"{name}/last"], perm=[0, 2, 3, 1]))
    # Old files list their weights as inputs, too, in any order.
    images = next(each for each in graph.input if each.name == name)
    shape: list[int | str | None] = [_BATCH, channel_count(contract.input.channels), *contract.input.size_hw]
    images.CopyFrom(helper.make_tensor_value_info(name, images.type.tensor_type.elem_type, shape))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, [_BATCH, len(contract.labels)]))
    del graph.value_info[:]  # stored shapes of other tensors may contain the old batch size
    helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    return bytes(model.SerializeToString(deterministic=True))


def _append_logits(graph: onnx.GraphProto, output: str, gives_probabilities: bool) -> None:
    """Append nodes that flatten the output to (N, classes), and that compute the logarithm of probabilities.

    They read the old output under another name, so that the output keeps its name.
    """
    _rename(graph, output, f"{output}/own")
    last = f"{output}/flat"
    graph.node.append(helper.make_node("Flatten", [f"{output}/own"], [last]))
    if gives_probabilities:
        # The logarithm of 0 would be -infinity.
        least = numpy_helper.from_array(np.array(_LEAST_PROBABILITY, np.float32), f"{output}/least")
        graph.initializer.append(least)
        graph.node.append(helper.make_node("Max", [last, least.name], [f"{output}/positive"]))
        last = f"{output}/positive"
    graph.node.append(helper.make_node("Log" if gives_probabilities else "Identity", [last], [output]))


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Give a tensor another name in all nodes that write or read it; the lists of graph inputs and outputs stay."""
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new


def _free_reshapes(graph: onnx.GraphProto) -> None:
    """Replace the batch size in the constant shape of each Reshape node by a value that fits every batch size.

    In the shape of a Reshape, -1 is inferred from the number of elements, and 0 keeps the input's size. Only one size
    can be inferred: the first one is set to -1, or to 0 if the shape has a -1 already.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
        if node.op_type != "Reshape" or node.input[1] not in constants:
            continue
        tensor = constants[node.input[1]]
        shape = numpy_helper.to_array(tensor).copy()
        if shape.ndim == 1 and len(shape) > 1 and shape[0] > 0:  # -1 and 0 fit every batch size already
            infers_other_axis = -1 in shape
            shape[0] = 0 if infers_other_axis else -1
            tensor.CopyFrom(numpy_helper.from_array(shape, tensor.name))
            if infers_other_axis:
                del node.attribute[:]  # `allowzero`, with which 0 means an empty axis


def _difference(path: Path, expected: FloatArray) -> str:
    """Return how the new file's probabilities for the trial images differ from `expected`; empty if they do not.

    The runtime's code classifies all trial images in one batch, which also tests the layout and the dynamic batch.
    """
    try:
        classifier = Classifier(path, intra_op_threads=1)
        found = classifier.probabilities(_trial_images(classifier.contract))
    except InputError as error:
        return one_line(str(error))
    difference = float(np.abs(found - expected).max())
    # NaN is a difference, too.
    return "" if difference < _TOLERANCE else f"probabilities differ by {difference:.3f}"
