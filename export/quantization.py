"""Quantisation of an exported float32 file to int8 or float16, with a gate: a file that loses accuracy is refused.

ONNX Runtime's quantiser makes the int8 file, calibrated on real crops.
"""

from __future__ import annotations

import math
import tempfile
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnxruntime import quantization as ortq
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxscript import ir

from edgekit.contract import SCHEMA_VERSION, Accuracy, Contract
from edgekit.errors import GateError, InputError, StorageError
from edgekit.export.options import Quantization
from edgekit.export.profiling.cost import load_graph
from edgekit.export.targets import QuantizedTypes
from edgekit.export.to_onnx import Exported, contract_of, finished, only_errors
from edgekit.files import write_atomic
from edgekit.models.callbacks import Progress, StageProgress, ignore_progress
from edgekit.models.data import DataSet, named_split
from edgekit.models.evaluation.evaluate import Evaluation, aligned, evaluate, open_classifier, with_contract_channels
from edgekit.preprocess import FloatArray, ImageU8, center_crop, to_input
from edgekit.tolerance import relative_difference

_PROTOCOL: Literal["center-crop"] = "center-crop"
# The quantiser keeps all activations of a stride in memory: 6 MB per crop of EdgeCNN.
_STRIDE_CROPS = 16
_BATCH_CROPS = 32
_ACTIVATIONS = {"u8s8": ortq.QuantType.QUInt8, "s8s8": ortq.QuantType.QInt8}


@dataclass(frozen=True)
class Calibration:
    """Crops for calibration, uint8 (N, H, W, 1 or 3), and their description in the contract."""

    crops: ImageU8
    text: str


@dataclass(frozen=True)
class QuantizedExport:
    """A quantised file.

    `error` is the root mean square of the logits' change divided by that of the logits; None for float16. `reference`
    is the evaluation of the float32 file, `own` that of the quantised file; both are None without evaluation data.
    `source` is the float32 export if the model was a checkpoint.
    """

    path: Path
    size_bytes: int
    contract: Contract
    error: float | None
    reference: Evaluation | None
    own: Evaluation | None
    source: Exported | None = None

    @property
    def drop_points(self) -> float | None:
        """Drop of accuracy in percentage points, negative if accuracy rose; None without evaluation data."""
        if self.reference is None or self.own is None:
            return None
        return 100 * (self.reference.accuracy - self.own.accuracy)


def refused_path(target: Path) -> Path:
    """Return where a file that is refused is kept: NAME.refused.onnx."""
    return target.with_name(f"{target.stem}.refused{target.suffix}")


def calibration_crops(dataset: DataSet, split: str, contract: Contract, count: int) -> Calibration:
    """Return `count` random crops of a split, always the same ones; all crops if the split has fewer.

    Raises:
        InputError: The split does not exist or is empty, or its images have another size.
    """
    images = with_contract_channels(dataset.split(split), contract)
    if len(images) == 0:
        raise InputError(f"split '{split}' has no image to calibrate on: choose another calibration split")
    chosen = np.random.default_rng(0).permutation(len(images))[:count]
    crops = center_crop(images.images[np.sort(chosen)], contract.input.size_hw)
    return Calibration(crops, f"{dataset.name} {named_split(dataset.splits, split)}, {len(chosen)} images, seed 0")


def quantize_file(
    source: Path,
    target: Path,
    quantization: Quantization,
    types: QuantizedTypes,
    calibration: Calibration | None,
    evaluation: tuple[DataSet, str] | None,
    max_drop_points: float,
    progress: StageProgress = ignore_progress,
) -> QuantizedExport:
    """Quantise an exported float32 file, and write it to `target` if its accuracy does not drop by too much.

    Args:
        source: The float32 file.
        target: The file to write.
        quantization: "int8" needs a calibration; "fp16" does not.
        types: Types of activations and weights for "int8".
        calibration: Crops for "int8".
        evaluation: A data set and a split; both files are evaluated on it with the runtime's code. None: no gate.
        max_drop_points: Largest allowed drop of accuracy in percentage points.
        progress: Called with (stage, done, total or None).

    Raises:
        GateError: Accuracy drops by more than `max_drop_points`. The file is kept as NAME.refused.onnx, `target` is
            left unchanged.
        InputError: The file or the data cannot be used.
    """
    reference, own = None, None
    if evaluation is not None:  # before the slow calibration, because the data may not fit the model
        dataset, split = evaluation
        reference = evaluate_file(source, dataset, split, partial(progress, "evaluating float32"))
    error = None
    if quantization == "fp16":
        model = to_float16(load_graph(source))
    else:
        assert calibration is not None
        model, error = quantize_static(load_graph(source), types, calibration, partial(progress, "calibrating"))
    if evaluation is not None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            path.write_bytes(model.SerializeToString(deterministic=True))
            own = evaluate_file(path, dataset, split, partial(progress, f"evaluating {quantization}"))
        model = _with_accuracy(model, dataset, split, own)
    content = model.SerializeToString(deterministic=True)
    quantized = QuantizedExport(target, len(content), contract_of(model), error, reference, own)
    drop_points = quantized.drop_points
    # Without evaluation all three are None.
    if reference and own and drop_points is not None and drop_points > max_drop_points:
        write_atomic(refused_path(target), content)
        raise GateError(
            f"accuracy of {quantization} drops by {drop_points:.2f} points, from {reference.accuracy:.2%} to "
            f"{own.accuracy:.2%}, allowed: {max_drop_points:g}: the file is kept as '{refused_path(target)}'"
        )
    write_atomic(target, content)
    return quantized


def evaluate_file(path: Path, dataset: DataSet, split: str, progress: Progress) -> Evaluation:
    """Return the evaluation of a model file on the centre crops of a split, with the runtime's code.

    Raises:
        InputError: The file or the data cannot be used.
    """
    classifier = open_classifier(path)
    return evaluate(classifier, aligned(dataset, dataset.split(split), classifier.contract), _PROTOCOL, progress)


def _with_accuracy(model: onnx.ModelProto, dataset: DataSet, split: str, own: Evaluation) -> onnx.ModelProto:
    """Return the model with a contract that states the accuracy of `own`, its evaluation on a split."""
    contract = contract_of(model)
    accuracy = Accuracy(dataset.name, named_split(dataset.splits, split), _PROTOCOL, own.correct, own.total)
    return finished(model, replace(contract, provenance=replace(contract.provenance, accuracy=(accuracy,))))


def quantize_static(
    model: onnx.ModelProto, types: QuantizedTypes, calibration: Calibration, progress: Progress = lambda _, __: None
) -> tuple[onnx.ModelProto, float]:
    """Return `model` with int8 weights (per channel) and 8-bit activations, and the error of its logits.

    The range of each activation is the one that it has on the calibration crops. The error is the `relative_difference`
    of the logits on these crops.

    Args:
        model: A float32 model with a contract.
        types: Types of activations and weights.
        calibration: At least one crop of real data.
        progress: Called with (inferences done, inferences in total).

    Raises:
        StorageError: The disk of the temporary folder is full.
    """
    contract, crops = contract_of(model), calibration.crops
    # From file to file, because the quantiser moves the tensors out of a model that it gets in memory. `only_errors`
    # hides advice that it logs and that does not apply here.
    with only_errors(), tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "quantized.onnx"
        source.write_bytes(model.SerializeToString())
        try:
            ortq.quantize_static(
                source,
                target,
                _Crops(crops, contract, progress),
                quant_format=ortq.QuantFormat.QDQ,
                per_channel=True,
                activation_type=_ACTIVATIONS[types],
                weight_type=ortq.QuantType.QInt8,
                calibrate_method=ortq.CalibrationMethod.MinMax,
                extra_options={"CalibStridedMinMax": _STRIDE_CROPS},  # limits the activations in memory
            )
            result = onnx.load(target)
        except DecodeError as damage:  # onnx ignores that the disk is full when it writes the quantiser's files
            raise StorageError(f"no space left in '{Path(folder).parent}': free some, or set TMPDIR") from damage
    error = relative_difference(_logits(model, crops, contract), _logits(result, crops, contract))
    return _with_contract(result, contract, "int8", f"{calibration.text}, minmax, qdq {types} per channel"), error


def to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return `model` with float16 weights and arithmetic; the types of its input and output stay."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)  # the converter changes its argument
    with only_errors(), redirect_stdout(StringIO()):  # the converter prints and logs its decisions
        converted = ir.from_proto(convert_float_to_float16(copy, keep_io_types=True))
    converted.graph.sort()  # the converter appends its casts at the end
    return _with_contract(ir.to_proto(converted), contract_of(model), "float16", calibration=None)


class _Crops(ortq.CalibrationDataReader):  # type: ignore[misc]
    """Calibration data in the interface of ONNX Runtime's quantiser: one preprocessed crop at a time.

    The quantiser calls `set_range` for each stride, and then `get_next` until it returns None. The length must be a
    multiple of the stride, so it is rounded up.
    """

    def __init__(self, crops: ImageU8, contract: Contract, progress: Progress) -> None:
        self._crops, self._spec, self._progress = crops, contract.input, progress
        self._next, self._end = 0, len(crops)

    def __len__(self) -> int:
        return math.ceil(len(self._crops) / _STRIDE_CROPS) * _STRIDE_CROPS

    def set_range(self, start_index: int, end_index: int) -> None:
        """Let `get_next` return the crops from `start_index` up to, not including, `end_index`."""
        self._next, self._end = start_index, min(end_index, len(self._crops))

    def get_next(self) -> dict[str, Any] | None:
        """Return the net's input for the next crop, by its name; None at the end of the range."""
        if self._next == self._end:  # of the stride that `set_range` has set
            return None
        batch_of_one = self._crops[self._next : self._next + 1]
        self._next += 1
        self._progress(self._next, len(self._crops))
        return {self._spec.name: to_input(batch_of_one, self._spec)}


def _logits(model: onnx.ModelProto, crops: ImageU8, contract: Contract) -> FloatArray:
    """Return the logits (N, classes) of a model in memory for crops (N, H, W, 1 or 3)."""
    options = ort.SessionOptions()
    options.log_severity_level = 4  # fatal errors only
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    logits: list[FloatArray] = []  # one array per batch
    for start in range(0, len(crops), _BATCH_CROPS):
        tensor = to_input(crops[start : start + _BATCH_CROPS], contract.input)
        logits += session.run([contract.output.name], {contract.input.name: tensor})  # a list of one array
    return np.concatenate(logits).astype(np.float32)


def _with_contract(
    model: onnx.ModelProto, contract: Contract, precision: Literal["float16", "int8"], calibration: str | None
) -> onnx.ModelProto:
    """Return a quantised model with its contract: that of the float32 model, with the new precision.

    The accuracy is left out, because it was measured on the float32 model. `calibration` describes the images; None for
    float16.
    """
    provenance = replace(contract.provenance, accuracy=())
    new = replace(contract, schema=SCHEMA_VERSION, precision=precision, calibration=calibration, provenance=provenance)
    return finished(model, new)
