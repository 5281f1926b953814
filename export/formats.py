"""`edgekit.benchmark_formats`: a model in all formats of its exported file, with accuracy, size, latency and memory.

Of the files whose accuracy drops by at most `MAX_DROP` plus two standard errors of the paired difference, the fastest
is recommended. If the 95 % interval of the ratio of two medians contains 1, the two files count as equally fast. Of
equally fast files, the smallest is recommended.
"""

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
from edgekit.export.onnx.targets import GENERIC
from edgekit.export.quantization.gate import evaluate_file
from edgekit.export.run import export, quantize
from edgekit.export.verification.parity import accuracy_drop
from edgekit.model_store import CHECKPOINT_SUFFIX, NCNN_SUFFIX, ONNX_SUFFIX, resolve_model
from edgekit.models.callbacks import Notify, StageProgress, ignore_message, ignore_progress
from edgekit.models.checkpoints.checkpoint import load_checkpoint
from edgekit.models.data import DataSet, split_to_measure
from edgekit.models.data.readers import load_dataset
from edgekit.models.evaluation.evaluate import Evaluation
from edgekit.report.document import BenchmarkReport, BoardResult, CellResult, Kind
from edgekit.report.statistics import ratio_interval, wilson_interval

SCHEMA = "edgekit.formats/1.0"
# Largest drop of accuracy of a recommended file, 0..1, as in `edgekit verify`.
MAX_DROP = 0.005
# The measured kind.
KIND: Kind = "net"
# The formats in the order of the table, with the arguments of `export` or `quantize` that make each; the first is the
# one that the others are compared with.
FORMATS: Mapping[str, Mapping[str, Any]] = {
    "float32": {},
    "int8-qdq": {"method": "int8", "form": "qdq"},
    "int8-qoperator": {"method": "int8", "form": "qoperator"},
    "fp16": {"method": "fp16"},
    "ncnn": {"precision": "fp32"},
    "ncnn-fp16": {"precision": "fp16"},
}
Measure: TypeAlias = Callable[[Mapping[str, Path]], BenchmarkReport]

_TARGET_OF_CORE = {"Cortex-A53": "a53", "Cortex-A72": "a72", "Cortex-A76": "a76"}


@dataclass(frozen=True)
class FormatFile:
    """A file of one format; `drop` states in one line that its accuracy drops by more than allowed, else None."""

    name: str
    path: Path
    size_bytes: int
    evaluation: Evaluation
    drop: str | None

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy, 0..1."""
        return wilson_interval(self.evaluation.correct, self.evaluation.total)


@dataclass(frozen=True)
class FormatRow:
    """A file with a number of threads, as measured on a board."""

    file: FormatFile
    cell: CellResult


@dataclass(frozen=True)
class FormatTable:
    """The rows of one board, and which is recommended, with the reason in one line."""

    board: BoardResult
    rows: tuple[FormatRow, ...]
    recommended: FormatRow
    reason: str


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

    @property
    def tables(self) -> tuple[FormatTable, ...]:
        """One table per board."""
        tables = []
        for board in self.report.boards:
            cells = sorted((cell for cell in board.cells if cell.kind == KIND), key=lambda cell: cell.intra_op_threads)
            rows = tuple(FormatRow(file, cell) for file in self.files for cell in cells if cell.model == file.name)
            tables.append(FormatTable(board, rows, *recommended(rows)))
        return tuple(tables)


def recommended(rows: Sequence[FormatRow]) -> tuple[FormatRow, str]:
    """Return the row to use and the reason, by the rule of this module; at least one row has no `drop`."""
    accurate = [row for row in rows if row.file.drop is None]
    fastest = min(accurate, key=lambda row: row.cell.latency.p50_ms)
    equal = [row for row in accurate if row is fastest or not _is_slower(row.cell, fastest.cell)]
    best = min(equal, key=lambda row: (row.file.size_bytes, row.cell.latency.p50_ms))
    speed = "the fastest"
    if best is not fastest:
        speed = f"as fast as {fastest.file.name} within the intervals and the smallest such file"
    elif fastest.cell.median_interval_ms is None:
        speed = "the fastest, without intervals (fewer than three processes)"
    return best, f"{speed}, of those whose accuracy drops by at most {100 * MAX_DROP:g} points plus two standard errors"


def _is_slower(cell: CellResult, fastest: CellResult) -> bool:
    own, other = cell.median_interval_ms, fastest.median_interval_ms
    if own is None or other is None:
        return True
    return ratio_interval(fastest.latency.p50_ms, other, cell.latency.p50_ms, own)[0] > 1


def measure_here(files: Mapping[str, Path]) -> BenchmarkReport:
    """Return the benchmark of files by name on this machine, with the defaults of `edgekit.benchmark`."""
    names = {str(path): name for name, path in files.items()}
    return benchmark(list(names), kinds=[KIND], report_name=names.__getitem__)


def benchmark_formats(
    model: str | Path,
    data: str | Path,
    *,
    formats: Sequence[str] = tuple(FORMATS),
    target: str | None = None,
    split: str | None = None,
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
        data: The data set for accuracy; its training images calibrate int8.
        formats: Names of `FORMATS`; "float32" is always measured, because the others are compared with it.
        target: Preset of rewrites, a key of `edgekit.export.onnx.targets.TARGETS`; None: this machine's.
        split: The split for accuracy; default: `PrivateTest` or `test`.
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
    wanted = [name for name in FORMATS if name == "float32" or name in formats]
    checkpoint = resolve_model(str(model), (CHECKPOINT_SUFFIX,))
    crop, reading = load_checkpoint(checkpoint).contract.crop, partial(progress, f"reading {Path(data).name}")
    dataset = load_dataset(Path(data), crop.resize_hw[0], reading, notify=notify, fit=crop.fit)
    split = split_to_measure(dataset, split)
    target = target or this_machines_target()
    files: list[FormatFile] = []
    left_out: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="edgekit-formats-") as folder:
        for name in wanted:
            try:
                progress(f"exporting {name}", 0, None)
                path = _make(name, checkpoint, Path(folder), target, dataset)
                evaluation = evaluate_file(path, dataset, split, partial(progress, f"evaluating {name}"))
            except (InputError, GateError, TemporaryError) as error:
                if not files:
                    raise
                left_out[name] = str(error)
                continue
            drop = accuracy_drop(files[0].evaluation, evaluation, MAX_DROP) if files else None
            files.append(FormatFile(name, path, path.stat().st_size, evaluation, drop))
        report = measure({file.name: file.path for file in files})
    if not report.complete:
        raise KeyboardInterrupt
    return FormatsReport(str(model), target, dataset.name, split, tuple(files), left_out, report)


def this_machines_target() -> str:
    """Return the preset for this machine's processor: x86, a53, a72 or a76; generic for all others."""
    board = read_board()
    return "x86" if board.architecture == "x86_64" else _TARGET_OF_CORE.get(board.cpu or "", GENERIC)


def _make(name: str, checkpoint: Path, folder: Path, target: str, dataset: DataSet) -> Path:
    """Write the file of a format and return its path."""
    arguments = FORMATS[name]
    path = folder / f"{name}{NCNN_SUFFIX if 'precision' in arguments else ONNX_SUFFIX}"
    if "method" in arguments:
        calibrate = dataset if arguments["method"] == "int8" else None
        quantize(checkpoint, path, target=target, calibrate=calibrate, **arguments)
    else:
        export(checkpoint, path, target=target, **arguments)
    return path
