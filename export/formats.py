"""`edgekit.benchmark_formats`: a model in all formats of its exported file, with accuracy, size, latency and memory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from edgekit.boards import read_board
from edgekit.device.benchmark.run import benchmark
from edgekit.errors import GateError, InputError, TemporaryError
from edgekit.export.quantization import evaluate_file
from edgekit.export.run import export, quantize
from edgekit.export.targets import GENERIC, TARGETS
from edgekit.export.verification.comparison import accuracy_drop
from edgekit.model_store import CHECKPOINT_SUFFIX, NCNN_SUFFIX, ONNX_SUFFIX, resolve_model
from edgekit.models.callbacks import Notify, StageProgress, ignore_message, ignore_progress
from edgekit.models.checkpoint import load_checkpoint
from edgekit.models.data import DataSet
from edgekit.models.data.readers import load_dataset
from edgekit.models.evaluation.evaluate import Evaluation
from edgekit.report.document import BenchmarkReport, BoardResult, CellResult, Kind
from edgekit.report.statistics import wilson_interval

# Largest drop of accuracy of a recommended file, 0..1, as in `edgekit verify`.
MAX_DROP = 0.005
# The measured kind.
KIND: Kind = "net"
# The formats in the order of the table, with their options of `export` or `quantize`; the first is the one that the
# others are compared with.
FORMATS: Mapping[str, Mapping[str, Any]] = {
    "float32": {},
    "int8": {"method": "int8"},
    "fp16": {"method": "fp16"},
    "ncnn": {"engine": "ncnn"},
    "ncnn-fp16": {"engine": "ncnn", "precision": "fp16"},
}
Measure: TypeAlias = Callable[[Mapping[str, Path]], BenchmarkReport]


@dataclass(frozen=True)
class FormatFile:
    """A file of one format; `drop` states in one line that its accuracy drops by more than allowed, else None."""

    name: str
    size_bytes: int
    evaluation: Evaluation
    drop: str | None

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy, 0..1."""
        return wilson_interval(self.evaluation.correct, self.evaluation.total)


@dataclass(frozen=True)
class FormatsReport:
    """Result of `benchmark_formats`; `left_out` has the reason for each format that was not measured."""

    model: str
    target: str
    dataset: str
    split: str
    files: tuple[FormatFile, ...]
    left_out: Mapping[str, str]
    report: BenchmarkReport

    def rows(self, board: BoardResult) -> list[tuple[FormatFile, CellResult]]:
        """Return each file with its measurement on a board, for each number of threads, in the order of `files`."""
        cells = [cell for cell in board.cells if cell.kind == KIND]
        cells.sort(key=lambda cell: cell.intra_op_threads)
        return [(file, cell) for file in self.files for cell in cells if cell.model == file.name]

    def recommended(self, board: BoardResult) -> tuple[FormatFile, CellResult]:
        """Return the row with the shortest median time, of the files whose accuracy does not drop."""
        accurate = [(file, cell) for file, cell in self.rows(board) if file.drop is None]
        return min(accurate, key=lambda row: row[1].latency.p50_ms)


def measure_here(files: Mapping[str, Path]) -> BenchmarkReport:
    """Return the benchmark of files by name on this machine, with the defaults of `edgekit.benchmark`."""
    names = {str(path): name for name, path in files.items()}
    # The files are temporary: the document has their names instead of their paths.
    return benchmark(list(names), kinds=[KIND], report_name=names.__getitem__)


def benchmark_formats(
    model: str | Path,
    data: str | Path,
    *,
    formats: Sequence[str] = tuple(FORMATS),
    target: str | None = None,
    measure: Measure = measure_here,
    progress: StageProgress = ignore_progress,
    notify: Notify = ignore_message,
) -> FormatsReport:
    """Export a checkpoint in several formats, measure each, and recommend one.

    Accuracy is measured on this machine with the runtime's code. Latency and memory are measured by `measure`. A format
    that cannot be exported or evaluated is left out, and the report states why. The exported files are temporary.

    Example:
        report = edgekit.benchmark_formats("runs/mine/best.safetensors", "fer2013.tar.gz", target="a53")
        print(report.recommended(report.report.boards[0]))

    Args:
        model: A .safetensors checkpoint of a net, the folder of a training, or a shipped model's name.
        data: The data set for accuracy; its training images calibrate int8.
        formats: Names of `FORMATS`; "float32" is always measured, because the others are compared with it.
        target: Preset of rewrites, a key of `edgekit.export.targets.TARGETS`; None: this machine's.
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
    checkpoint = resolve_model(str(model), (CHECKPOINT_SUFFIX,))
    crop = load_checkpoint(checkpoint).contract.crop
    reading = partial(progress, f"reading {Path(data).name}")
    size_px = crop.resize_hw[0]  # the images of a data set are squares
    dataset = load_dataset(Path(data), size_px, reading, notify=notify, fit=crop.fit)
    split = dataset.chosen_split(name=None, kind="test")
    target = target or this_machines_target()
    files: list[FormatFile] = []
    left_out: dict[str, str] = {}  # reasons
    with tempfile.TemporaryDirectory(prefix="edgekit-formats-") as folder:
        paths: dict[str, Path] = {}
        for name in FORMATS:
            if name != "float32" and name not in formats:
                continue
            try:
                progress(f"exporting {name}", 0, None)  # the total is not known
                path = _write_format(name, checkpoint, Path(folder), target, dataset)
                evaluation = evaluate_file(path, dataset, split, partial(progress, f"evaluating {name}"))
            except (InputError, GateError, TemporaryError) as error:
                if name == "float32":
                    raise
                left_out[name] = str(error)
                continue
            drop = accuracy_drop(files[0].evaluation, evaluation, MAX_DROP) if files else None  # float32 is the first
            files.append(FormatFile(name, path.stat().st_size, evaluation, drop))
            paths[name] = path
        report = measure(paths)
    if not report.complete:
        raise KeyboardInterrupt
    return FormatsReport(str(model), target, dataset.name, split, tuple(files), left_out, report)


def _write_format(name: str, checkpoint: Path, folder: Path, target: str, dataset: DataSet) -> Path:
    """Export a checkpoint in one of `FORMATS` to a file in `folder`, and return the file; raises as `export`."""
    options = FORMATS[name]
    path = folder / f"{name}{NCNN_SUFFIX if 'engine' in options else ONNX_SUFFIX}"
    if "method" in options:
        calibrate = dataset if name == "int8" else None
        quantize(checkpoint, path, target=target, calibrate=calibrate, **options)
    else:
        export(checkpoint, path, target=target, **options)
    return path


def this_machines_target() -> str:
    """Return the preset of rewrites for this machine's processor; "generic" if there is none for it."""
    board = read_board()
    if board.architecture == "x86_64":
        return "x86"
    core = (board.cpu or "").removeprefix("Cortex-").lower()  # "Cortex-A53" is the preset "a53"
    return core if core in TARGETS else GENERIC
