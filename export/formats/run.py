"""`edgekit.benchmark_formats`: a model in all formats of its exported file, with accuracy, size, latency and memory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

from edgekit.boards import read_board
from edgekit.device.benchmark.run import benchmark
from edgekit.errors import GateError, InputError, TemporaryError
from edgekit.export.formats.table import KIND, MAX_DROP, FormatFile, FormatsReport
from edgekit.export.onnx.options import Quantization
from edgekit.export.onnx.targets import GENERIC, TARGETS, QuantizedForm, chosen_passes
from edgekit.export.onnx.to_onnx import export_checkpoint
from edgekit.export.quantization.gate import Calibration, calibration_crops, evaluate_file, quantize_file
from edgekit.export.quantization.quantize import StaticSettings
from edgekit.export.run import export
from edgekit.export.verification.parity import accuracy_drop
from edgekit.model_store import CHECKPOINT_SUFFIX, NCNN_SUFFIX, ONNX_SUFFIX, resolve_model
from edgekit.models.callbacks import Notify, StageProgress, ignore_message, ignore_progress
from edgekit.models.checkpoints.checkpoint import load_checkpoint
from edgekit.models.data import DataSet, split_to_measure
from edgekit.models.data.readers import load_dataset
from edgekit.report.document import BenchmarkReport

# The formats in the order of the table; the first is the one that the others are compared with.
FORMATS = ("float32", "int8-qdq", "int8-qoperator", "fp16", "ncnn", "ncnn-fp16")
Measure: TypeAlias = Callable[[Mapping[str, Path]], BenchmarkReport]

_TARGET_OF_CORE = {"Cortex-A53": "a53", "Cortex-A72": "a72", "Cortex-A76": "a76"}


def measure_here(files: Mapping[str, Path]) -> BenchmarkReport:
    """Return the benchmark of files by name on this machine, with the defaults of `edgekit.benchmark`."""
    names = {str(path): name for name, path in files.items()}
    return benchmark(list(names), kinds=[KIND], report_name=names.__getitem__)


def benchmark_formats(
    model: str | Path,
    data: str | Path,
    *,
    formats: Sequence[str] = FORMATS,
    target: str | None = None,
    split: str | None = None,
    calibrate_split: str = "Training",
    calibration_images: int = 500,
    measure: Measure = measure_here,
    progress: StageProgress = ignore_progress,
    notify: Notify = ignore_message,
) -> FormatsReport:
    """Export a checkpoint in several formats, measure each, and recommend one.

    Accuracy is measured on this machine with the runtime's code. Latency and memory are measured by `measure`. A format
    that cannot be exported or run is left out, and the report states the reason. The exported files are temporary.

    Example:
        report = edgekit.benchmark_formats("runs/mine/best.safetensors", "fer2013.tar.gz", target="a53")
        print(report.tables[0].recommended, report.tables[0].reason)

    Args:
        model: A .safetensors checkpoint of a net, the folder of a training, or a shipped model's name.
        data: The data set for accuracy and for the calibration of int8.
        formats: Names of `FORMATS`; "float32" is always measured, because the others are compared with it.
        target: Preset of rewrites, a key of `edgekit.export.onnx.targets.TARGETS`; None: this machine's.
        split: The split for accuracy; default: `PrivateTest` or `test`.
        calibrate_split: The split whose images calibrate int8.
        calibration_images: Number of images drawn from that split.
        measure: Returns the benchmark of files by name, on this machine or on boards.
        progress: Called with (stage, done, total or None).
        notify: Called with one line for the user.

    Raises:
        InputError: The model, the data or an argument cannot be used.
        KeyboardInterrupt: The benchmark was interrupted.
    """
    for name in formats:
        if name not in FORMATS:
            raise InputError(f"format '{name}' is not known: choose from {', '.join(FORMATS)}")
    wanted = [name for name in FORMATS if name == FORMATS[0] or name in formats]
    checkpoint = resolve_model(str(model), (CHECKPOINT_SUFFIX,))
    crop = load_checkpoint(checkpoint).contract.crop
    dataset = load_dataset(
        Path(data), crop.resize_hw[0], partial(progress, f"reading {Path(data).name}"), notify=notify, fit=crop.fit
    )
    split = split_to_measure(dataset, split)
    target = target or this_machines_target()
    calibration = (dataset, calibrate_split, calibration_images)
    with tempfile.TemporaryDirectory(prefix="edgekit-formats-") as folder:
        maker = _Maker(checkpoint, Path(folder), target, calibration)
        files, left_out = _made_and_evaluated(maker, wanted, split, progress)
        report = measure({file.name: file.path for file in files})
    if not report.complete:
        raise KeyboardInterrupt
    return FormatsReport(str(model), target, dataset.name, split, tuple(files), left_out, report)


def this_machines_target() -> str:
    """Return the preset for this machine's processor: x86, a53, a72 or a76; generic for all others."""
    board = read_board()
    return "x86" if board.architecture == "x86_64" else _TARGET_OF_CORE.get(board.cpu or "", GENERIC)


@dataclass(frozen=True)
class _Maker:
    """Makes the files of a checkpoint. `calibration` is a data set, its split, and the number of images."""

    checkpoint: Path
    folder: Path
    target: str
    calibration: tuple[DataSet, str, int]

    def make(self, name: str, progress: StageProgress) -> Path:
        """Write the file of a format and return its path.

        Raises:
            InputError: The net cannot be converted, or a converter is not installed.
            GateError: The file's logits differ from the checkpoint's.
        """
        path = self.folder / f"{name}{NCNN_SUFFIX if name.startswith('ncnn') else ONNX_SUFFIX}"
        if name == "float32":
            export(self.checkpoint, path, target=self.target)
        elif name.startswith("ncnn"):
            export(self.checkpoint, path, target=self.target, precision="fp16" if name == "ncnn-fp16" else "fp32")
        elif name == "fp16":
            self._quantize(path, "fp16", "qdq", None, progress)
        else:
            form: QuantizedForm = "qoperator" if name == "int8-qoperator" else "qdq"
            dataset, split, count = self.calibration
            contract = load_checkpoint(self.checkpoint).contract
            self._quantize(path, "int8", form, calibration_crops(dataset, split, contract, count, seed=0), progress)
        return path

    def _quantize(
        self,
        path: Path,
        method: Quantization,
        form: QuantizedForm,
        calibration: Calibration | None,
        progress: StageProgress,
    ) -> None:
        source = self.folder / "source.onnx"
        if not source.exists():
            export_checkpoint(self.checkpoint, source, None, chosen_passes(self.target, quantized=True))
        settings = StaticSettings(TARGETS[self.target].types, form, "minmax")
        quantize_file(source, path, method, settings, calibration, None, 0.0, progress)


def _made_and_evaluated(
    maker: _Maker, names: Sequence[str], split: str, progress: StageProgress
) -> tuple[list[FormatFile], dict[str, str]]:
    """Return the files that can be made and run, and the reason for each other one.

    Raises:
        InputError: The first format cannot be made or evaluated; the others are compared with it.
    """
    files: list[FormatFile] = []
    left_out: dict[str, str] = {}
    for name in names:
        try:
            progress(f"exporting {name}", 0, None)
            path = maker.make(name, progress)
            evaluation = evaluate_file(path, maker.calibration[0], split, partial(progress, f"evaluating {name}"))
        except (InputError, GateError, TemporaryError) as error:
            if not files:
                raise
            left_out[name] = str(error)
            continue
        drop = accuracy_drop(files[0].evaluation, evaluation, MAX_DROP) if files else None
        files.append(FormatFile(name, path, path.stat().st_size, evaluation, drop))
    return files, left_out
