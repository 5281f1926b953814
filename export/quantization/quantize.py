"""Quantisation of an ONNX model by ONNX Runtime's quantiser, calibrated on real crops."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
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

from edgekit.contract import SCHEMA_VERSION, Contract
from edgekit.errors import InputError, StorageError
from edgekit.export.onnx.targets import QuantizedForm, QuantizedTypes
from edgekit.export.onnx.to_onnx import contract_of, finished, only_errors
from edgekit.models.callbacks import Progress
from edgekit.preprocess import FloatArray, ImageU8, to_input
from edgekit.testing.tolerance import relative_difference

# A layer stays in float32 if that removes at least this share of the quantised net's error. The threshold is high
# because a float32 layer needs conversions before and after it: EdgeCNN's stem would remove 7 to 14 % of the error.
SENSITIVE_SHARE = 0.25

# The quantiser keeps all activations of a stride in memory: 6 MB per crop of EdgeCNN.
_STRIDE_CROPS = 16
_BATCH_CROPS = 32
_FORMS = {"qdq": ortq.QuantFormat.QDQ, "qoperator": ortq.QuantFormat.QOperator}
_ACTIVATIONS = {"u8s8": ortq.QuantType.QUInt8, "s8s8": ortq.QuantType.QInt8}
_LAYERS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class StaticSettings:
    """Settings of int8: data types of activations and weights, and form of the file."""

    types: QuantizedTypes = "u8s8"
    form: QuantizedForm = "qdq"


@dataclass(frozen=True)
class Quantized:
    """A quantised model.

    `error` is the root mean square of the logits' change divided by that of the logits; None if not measured. `kept`
    names the layers left in float32. `error_without` maps the name of the first and of the last layer to the error with
    that layer in float32.
    """

    model: onnx.ModelProto
    error: float | None
    kept: tuple[str, ...]
    error_without: dict[str, float]


def quantize_static(
    model: onnx.ModelProto,
    crops: ImageU8,
    settings: StaticSettings,
    calibration: str,
    progress: Progress = lambda _, __: None,
) -> Quantized:
    """Return `model` with int8 weights (per channel) and 8-bit activations.

    The error of the logits on the calibration crops is measured with the first and with the last layer in float32; each
    layer stays in float32 if that reduces the error by more than the share `SENSITIVE_SHARE`.

    Args:
        model: A float32 model with a contract.
        crops: uint8 (N, H, W, 1 or 3) of real data, N ≥ 1.
        settings: Types and form.
        calibration: Description of the crops for the contract.
        progress: Called with (inferences done, inferences in total).

    Raises:
        InputError: There is no crop.
    """
    if not len(crops):
        raise InputError("there is no image to calibrate on: name a split that has some")
    contract = contract_of(model)
    expected = _logits(model, crops, contract)
    candidates = _first_and_last(model)
    total = (1 + len(candidates) + 1) * len(crops)
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    def quantized(kept: tuple[str, ...]) -> tuple[onnx.ModelProto, float]:
        candidate = _quantized(model, crops, contract, settings, kept, step)
        return candidate, relative_difference(expected, _logits(candidate, crops, contract))

    result, error = quantized(())
    errors = {name: quantized((name,))[1] for name in candidates}
    kept = tuple(name for name in candidates if errors[name] < (1 - SENSITIVE_SHARE) * error)
    if kept:
        result, error = quantized(kept)
    progress(total, total)
    text = (
        f"{calibration}, minmax, {settings.form} {settings.types} per channel"
        f"{', float32: ' + ' '.join(kept) if kept else ''}"
    )
    return Quantized(_with_contract(result, contract, "int8", text), error, kept, errors)


def quantize_dynamic(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return `model` with 8-bit weights; each inference quantises its activations by their range in that inference."""
    contract = contract_of(model)
    with _quantizer_files(model) as (source, target):
        ortq.quantize_dynamic(source, target, per_channel=False, weight_type=ortq.QuantType.QUInt8)
        result = onnx.load(target)
    return _with_contract(result, contract, "int8", "none: activations are measured at each inference")


def to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return `model` with float16 weights and arithmetic, and unchanged input and output types."""
    contract = contract_of(model)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    with only_errors(), redirect_stdout(StringIO()):
        converted = ir.from_proto(convert_float_to_float16(copy, keep_io_types=True))
    converted.graph.sort()  # the converter appends its casts at the end
    result = ir.to_proto(converted)
    return _with_contract(result, contract, "float16", None)


def _quantized(
    model: onnx.ModelProto,
    crops: ImageU8,
    contract: Contract,
    settings: StaticSettings,
    kept: tuple[str, ...],
    step: Callable[[], None],
) -> onnx.ModelProto:
    with _quantizer_files(model) as (source, target):
        ortq.quantize_static(
            source,
            target,
            _Crops(crops, contract, step),
            quant_format=_FORMS[settings.form],
            per_channel=True,
            activation_type=_ACTIVATIONS[settings.types],
            weight_type=ortq.QuantType.QInt8,
            nodes_to_exclude=list(kept),
            calibrate_method=ortq.CalibrationMethod.MinMax,
            extra_options={"CalibStridedMinMax": _STRIDE_CROPS},
        )
        return onnx.load(target)


class _Crops(ortq.CalibrationDataReader):  # type: ignore[misc]
    """Calibration data: one preprocessed crop at a time; its length is rounded up to a multiple of the stride."""

    def __init__(self, crops: ImageU8, contract: Contract, step: Callable[[], None]) -> None:
        self._crops, self._spec, self._step = crops, contract.input, step
        self._next, self._end = 0, len(crops)

    def __len__(self) -> int:
        return -(-len(self._crops) // _STRIDE_CROPS) * _STRIDE_CROPS

    def set_range(self, start_index: int, end_index: int) -> None:
        self._next, self._end = start_index, min(end_index, len(self._crops))

    def get_next(self) -> dict[str, Any] | None:
        if self._next == self._end:
            return None
        crop = self._crops[self._next : self._next + 1]
        self._next += 1
        self._step()
        return {self._spec.name: to_input(crop, self._spec)}


def _first_and_last(model: onnx.ModelProto) -> tuple[str, ...]:
    names = [node.name for node in model.graph.node if node.op_type in _LAYERS]
    return tuple(dict.fromkeys((*names[:1], *names[-1:])))


def _logits(model: onnx.ModelProto, crops: ImageU8, contract: Contract) -> FloatArray:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    logits = [
        session.run([contract.output.name], {contract.input.name: to_input(part, contract.input)})[0]
        for part in (crops[start : start + _BATCH_CROPS] for start in range(0, len(crops), _BATCH_CROPS))
    ]
    return np.concatenate(logits).astype(np.float32)


def _with_contract(
    model: onnx.ModelProto, contract: Contract, precision: Literal["float16", "int8"], calibration: str | None
) -> onnx.ModelProto:
    """Return the model with the contract of a quantised file, without the accuracies measured on the float32 model."""
    provenance = replace(contract.provenance, accuracy=())
    new = replace(contract, schema=SCHEMA_VERSION, precision=precision, calibration=calibration, provenance=provenance)
    return finished(model, new)


@contextmanager
def _quantizer_files(model: onnx.ModelProto) -> Iterator[tuple[Path, Path]]:
    """Yield two paths in a temporary folder: a file with `model`, and the file for the quantised model.

    The quantiser moves the tensors out of a model that it gets in memory, and logs advice that does not apply here.

    Raises:
        StorageError: There is too little space for the files.
    """
    with only_errors(), tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "float.onnx"
        source.write_bytes(model.SerializeToString())
        try:
            yield source, Path(folder) / "quantized.onnx"
        except DecodeError as error:  # onnx ignores that the disk is full when it writes the quantiser's files
            parent = Path(folder).parent
            raise StorageError(f"'{parent}' is too small for the files of the quantiser: free some space") from error
