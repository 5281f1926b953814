"""Classifiers as teachers: checkpoints, exported files, and third-party ONNX files without contract."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import onnxruntime as ort
import torch

from edgekit.contract import Channels, Contract, CropSpec, InputSpec, OutputSpec, channel_count
from edgekit.device.engines.session import default_intra_op_threads, has_contract, open_session, run_session
from edgekit.errors import EdgekitError, InputError
from edgekit.files import sha256_of
from edgekit.model_store import ONNX_SUFFIX
from edgekit.models.checkpoints.checkpoint import load_checkpoint
from edgekit.models.data.folds import pixel_facts
from edgekit.models.distill.teachers import Teacher, TeacherOutputs, name_of, to_teacher_input
from edgekit.models.evaluation.evaluate import CropClassifier, TorchClassifier, open_classifier
from edgekit.models.model_loading import build_net
from edgekit.preprocess import FloatArray, ImageU8, to_tensor

OutputKind = Literal["logits", "probabilities"]

_LEAST_PROBABILITY = 1e-12


@dataclass(frozen=True)
class PlainOnnx:
    """Properties of an ONNX file without contract; None where a property is not known.

    `size_px` is required only if the graph's input size is dynamic. `scale`, `mean` and `std` have the meaning of
    `edgekit.contract.InputSpec`.
    """

    labels: tuple[str, ...] | None = None
    size_px: int | None = None
    channels: Channels | None = None
    scale: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    output: OutputKind | None = None

    def __post_init__(self) -> None:
        for value, choices in ((self.channels, get_args(Channels)), (self.output, get_args(OutputKind))):
            if value is not None and value not in choices:
                raise InputError(f"'{value}' is not one of {', '.join(choices)}")

    @property
    def is_empty(self) -> bool:
        """Whether all properties are None."""
        return self == PlainOnnx()


def is_plain_onnx(path: Path) -> bool:
    """Return whether an .onnx file lacks a contract.

    Raises:
        InputError: The file cannot be loaded.
    """
    return not has_contract(open_session(path, 1, level="none"), path)


def classifier_teacher(path: Path, device: torch.device, threads: int | None = None) -> Teacher:
    """Return an edgekit checkpoint or exported file as a teacher.

    Raises:
        InputError: The file cannot be used.
    """
    classifier: CropClassifier
    facts: dict[str, Any] = {}
    if path.suffix == ONNX_SUFFIX:
        classifier = open_classifier(path, threads)
    else:
        checkpoint = load_checkpoint(path)
        classifier = TorchClassifier(build_net(checkpoint), checkpoint.contract, device)
        if isinstance(fold := checkpoint.training.get("fold"), dict):
            facts = {"fold": fold, "pixels": pixel_facts(checkpoint.contract.crop)}
    contract = classifier.contract

    def predict(crops: ImageU8) -> TeacherOutputs:
        return TeacherOutputs(
            classifier.logits(to_teacher_input(crops, contract.input.size_hw, contract.crop.grayscale))
        )

    height, width = (
        cropped / full for cropped, full in zip(contract.input.size_hw, contract.crop.resize_hw, strict=True)
    )
    return Teacher(
        kind="classifier",
        name=name_of(path),
        labels=contract.labels,
        sha256=sha256_of(path),
        predict=predict,
        share_hw=(height, width),
        subject=contract.subject,
        facts={"architecture": contract.architecture, **facts},
    )


def plain_onnx_teacher(path: Path, plain: PlainOnnx, threads: int | None = None) -> Teacher:
    """Return a third-party ONNX classifier as a teacher; its input is the whole face image.

    The graph has one float32 input (N, C, H, W) or (N, H, W, C) with dynamic or fixed N; its first output is (N,
    classes).

    Raises:
        InputError: A required property is missing from `plain`, or contradicts the graph.
    """
    session = open_session(path, threads or default_intra_op_threads())
    net = _PlainNet(path, session, plain)
    file_sha256 = sha256_of(path)
    plain_sha256 = hashlib.sha256(json.dumps(asdict(plain), sort_keys=True).encode())
    return Teacher(
        kind="classifier",
        name=path.name,
        labels=net.contract.labels,
        sha256=hashlib.sha256(f"{file_sha256} {plain_sha256.hexdigest()}".encode()).hexdigest(),
        predict=lambda crops: TeacherOutputs(net.logits(crops)),
        facts={"file_sha256": file_sha256},
    )


class _PlainNet:
    """ONNX Runtime session of a third-party file, with a contract made from the graph and the given properties."""

    def __init__(self, path: Path, session: ort.InferenceSession, plain: PlainOnnx) -> None:
        self._path = path
        self._session = session
        inputs = session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type != "tensor(float)":
            raise InputError(f"teacher '{path}' is not an image classifier: expected one float32 input of four axes")
        node, shape = inputs[0], inputs[0].shape
        self._channels_last = shape[1] not in (1, 3) and shape[3] in (1, 3)
        graph_hw = shape[1:3] if self._channels_last else shape[2:4]
        _require_complete(path, plain, graph_hw)
        size_hw = tuple(side if isinstance(side, int) else cast(int, plain.size_px) for side in graph_hw)
        if plain.size_px is not None and set(size_hw) != {plain.size_px}:
            raise InputError(
                f"teacher '{path}': the given size is {plain.size_px}, the graph's input is {list(size_hw)}"
            )
        channels = cast(Channels, plain.channels)
        depth = shape[3] if self._channels_last else shape[1]
        if isinstance(depth, int) and depth != channel_count(channels):
            raise InputError(f"teacher '{path}': channels is {channels}, the graph has {depth} channels")
        self._batch = shape[0] if isinstance(shape[0], int) else None
        self._gives_probabilities = plain.output == "probabilities"
        spec = InputSpec(
            name=node.name,
            size_hw=(size_hw[0], size_hw[1]),
            channels=channels,
            scale=cast(float, plain.scale),
            mean=cast(tuple[float, ...], plain.mean),
            std=cast(tuple[float, ...], plain.std),
        )
        crop = CropSpec(0.0, channels == "gray", spec.size_hw, spec.size_hw)
        output = OutputSpec(session.get_outputs()[0].name)
        self.contract = Contract("onnx", cast(tuple[str, ...], plain.labels), spec, crop, output)
        found = self.logits(np.zeros((1, *spec.size_hw, channel_count(channels)), np.uint8)).shape[1]
        if found != len(self.contract.labels):
            raise InputError(
                f"teacher '{path}': {len(self.contract.labels)} labels are given, the graph has {found} outputs"
            )

    def logits(self, crops: ImageU8) -> FloatArray:
        spec = self.contract.input
        tensor = to_tensor(to_teacher_input(crops, spec.size_hw, self.contract.crop.grayscale), spec)
        if self._channels_last:
            tensor = np.ascontiguousarray(np.moveaxis(tensor, 1, -1))
        step = self._batch or len(tensor)
        values = np.concatenate([self._run(tensor[start : start + step]) for start in range(0, len(tensor), step)])
        return np.log(np.maximum(values, _LEAST_PROBABILITY)) if self._gives_probabilities else values

    def _run(self, tensor: FloatArray) -> FloatArray:
        count = len(tensor)
        if self._batch and count < self._batch:
            tensor = np.concatenate([tensor, np.repeat(tensor[-1:], self._batch - count, axis=0)])
        try:
            (values,) = run_session(
                self._session, self._path, [self.contract.output.name], {self.contract.input.name: tensor}
            )
            return np.asarray(values, np.float32).reshape(len(tensor), -1)[:count]
        except EdgekitError:
            raise
        except Exception as error:  # onnxruntime's exceptions have no common base class
            reason = str(error).splitlines()[0]
            raise InputError(f"inference of teacher '{self._path}' failed: {reason}") from error


def _require_complete(path: Path, plain: PlainOnnx, graph_hw: list[int | str | None]) -> None:
    needed = {
        "labels": plain.labels,
        "size": plain.size_px or all(isinstance(side, int) for side in graph_hw) or None,
        "channels": plain.channels,
        "scale": plain.scale,
        "mean": plain.mean,
        "std": plain.std,
        "output": plain.output,
    }
    missing = [name for name, value in needed.items() if value is None]
    if missing:
        raise InputError(f"teacher '{path}' has no edgekit contract: give its {', '.join(missing)} (--teacher-…)")
