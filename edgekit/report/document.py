"""The benchmark document `edgekit.bench/2.2` as typed structures, and reading and merging of such documents.

`BenchmarkReport` is the whole document. Attributes have the names of the JSON fields, except `quality_flags` ("marks")
and `frame_cache` ("clip"). Times are in milliseconds (`_ms`) or seconds (`_s`), memory is in MiB.

A document may come from a board or from another person. `parse_document` checks its types and ranges, and removes
characters that could move a terminal's cursor or reverse text.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args

import msgspec
from msgspec import Meta

from edgekit.errors import InputError
from edgekit.files import require_file
from edgekit.typed_json import convert, parse_json

SCHEMA = "edgekit.bench/2.2"
_READABLE = "edgekit.bench/2."
_SHOWN_CHARS = 60
# The clock's resolution is coarser; ratios and logarithms of smaller medians could overflow.
_MIN_MEDIAN_MS = 1e-6

# What is measured, in the order of tables. Documents before 2.2 have other names, and two kinds that are read only.
Kind: TypeAlias = Literal["net", "frame", "run"]
KINDS: tuple[Kind, ...] = get_args(Kind)
AnyKind: TypeAlias = Literal["net", "classifier", "frame", "run", "camera"]
ANY_KINDS: tuple[AnyKind, ...] = get_args(AnyKind)
OLD_KINDS: dict[str, Kind] = {"inference": "net", "pipeline": "frame", "per-frame": "frame", "loop": "run"}
# Reasons to doubt a measurement.
QualityFlag: TypeAlias = Literal["throttled", "clock changed", "not warm", "busy"]
EXPLANATIONS: dict[QualityFlag, str] = {
    "throttled": "the board throttled while measuring: cool it or improve its power supply",
    "clock changed": "the clock changed while measuring: set the governor to 'performance'",
    "not warm": "the times had not settled when the warm-up ended: measure for more seconds",
    "busy": "other programs used the processors: stop them and measure again",
}
# A process with one of these is measured again after a pause.
INVALIDATING: frozenset[QualityFlag] = frozenset({"throttled", "clock changed"})

# Bounds keep what is computed from these values (ratios, logarithms, sums) finite.
_LARGEST = 10**12
_SMALLEST = 1e-6
Count: TypeAlias = Annotated[int, Meta(ge=0, le=_LARGEST)]
PositiveCount: TypeAlias = Annotated[int, Meta(ge=1, le=_LARGEST)]
Number: TypeAlias = Annotated[float, Meta(ge=0, le=_LARGEST)]
PositiveNumber: TypeAlias = Annotated[float, Meta(ge=_SMALLEST, le=_LARGEST)]
Temperature: TypeAlias = Annotated[float, Meta(ge=-1e6, le=1e6)]
Sha256: TypeAlias = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
ThrottleFlags: TypeAlias = Annotated[
    str, Meta(pattern="^0x[0-9a-f]{1,8}$", description="What vcgencmd get_throttled prints.")
]
Interval: TypeAlias = tuple[PositiveNumber, PositiveNumber]


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Summary of latencies; percentiles are interpolated linearly between samples."""

    count: PositiveCount
    mean_ms: Number
    p50_ms: Number
    p90_ms: Number
    p99_ms: Number
    max_ms: Number


class Histogram(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of latencies in bins of equal width from `low_ms` to `high_ms`; `above` is the count above `high_ms`."""

    low_ms: Number
    high_ms: Number
    counts: Annotated[tuple[Count, ...], Meta(min_length=1)]
    above: Count


class ThrottleState(msgspec.Struct, frozen=True, kw_only=True):
    """Throttle flags of a Raspberry Pi, as a number and in words."""

    flags: ThrottleFlags
    now: tuple[str, ...]
    since_boot: tuple[str, ...]


class BoardState(msgspec.Struct, frozen=True, kw_only=True):
    """State of the board at one moment."""

    temperature_c: Temperature | None
    clock_mhz: Number | None
    clock_source: Literal["firmware", "cpufreq", "cpuinfo"] | None
    clock_min_mhz: Number | None
    clock_max_mhz: Number | None
    governor: str | None
    throttling: ThrottleState | None
    memory_available_mib: Count | None
    load_1min: Number | None


class MachineReading(msgspec.Struct, frozen=True, kw_only=True):
    """State of the machine between two iterations.

    `at_s` counts from the start of the measurement; `images_per_s` is the mean rate since the previous reading.
    """

    at_s: Number
    images_per_s: Number
    temperature_c: Temperature | None
    clock_mhz: Number | None
    throttle_flags: ThrottleFlags | None


class WarmUp(msgspec.Struct, frozen=True, kw_only=True):
    """Iterations before the measurement, which are not measured; `stable` is false if their times did not become
    stable."""

    iterations: Count
    seconds: Number
    stable: bool


class ProcessResult(msgspec.Struct, frozen=True, kw_only=True, rename={"quality_flags": "marks"}):
    """Measurement of a cell in one process.

    `started_s` counts from the start of the benchmark. `load_ms` is the time to read the model file and create its
    session. `resident_mib` is the memory of the process without the frames of the benchmark. `others_processors` is the
    number of processors that other programs used.
    """

    started_s: Annotated[float, Meta(ge=-1e6, le=1e9)]
    elapsed_s: Number
    busy_s: Number
    load_ms: Number
    warm_up: WarmUp
    latency: Latency
    images_per_s: Number
    resident_mib: Number
    others_processors: Number | None
    before: BoardState
    during: tuple[MachineReading, ...]
    after: BoardState
    quality_flags: tuple[QualityFlag, ...]


class RepeatedProcess(msgspec.Struct, frozen=True, kw_only=True, rename={"quality_flags": "marks"}):
    """A process that was discarded and measured again; `marks` are the reasons."""

    quality_flags: tuple[QualityFlag, ...]
    p50_ms: Number
    after: BoardState


class ThreadUse(msgspec.Struct, frozen=True, kw_only=True):
    """Threads of a run, as `edgekit run` chooses them. If `staged` is true, each stage has its own thread. The numbers
    are the threads within one call of detector, classifier and OpenCV.
    """

    staged: bool
    detector: PositiveCount
    classifier: PositiveCount
    opencv: PositiveCount


class CellResult(msgspec.Struct, frozen=True, kw_only=True, rename={"quality_flags": "marks"}):
    """One model on one engine with one number of threads in one kind of measurement.

    `latency` is the time of one iteration, over all processes. An iteration is a batch of faces ("net") or one frame.
    In a "run", the time of a frame is the time of a block of consecutive frames, divided by the number of these frames.
    The kinds "classifier" and "camera" are in documents before 2.2 only. `median_interval_ms` is the 95 % interval of
    the median; null with fewer than three processes. `images_per_s` counts faces or frames. `age` is the time from the
    capture of a frame to its result.
    """

    kind: AnyKind
    model: str
    engine: str
    intra_op_threads: PositiveCount
    batch: PositiveCount
    detector: str | None
    faces_per_frame: Number | None
    latency: Latency
    median_interval_ms: Interval | None
    images_per_s: PositiveNumber
    load_ms: Number
    resident_mib: Number
    histogram: Histogram
    stages: dict[str, Latency]
    quality_flags: tuple[QualityFlag, ...]
    repeated: tuple[RepeatedProcess, ...]
    processes: Annotated[tuple[ProcessResult, ...], Meta(min_length=1)]
    age: Latency | None = None
    # Since 2.1.
    threads: ThreadUse | None = None

    @property
    def key(self) -> tuple[str, str, str, int, int]:
        """The values that identify a cell of a board: kind, model, engine, threads, batch."""
        return self.kind, self.model, self.engine, self.intra_op_threads, self.batch


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A measured model; `name` is the name that the user gave."""

    name: str
    sha256: Sha256
    size_bytes: Count
    architecture: str
    precision: str
    input_hw: tuple[Count, Count]
    labels: Count


class FrameCacheInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The frames of the benchmark, in memory; `complete` is false if the source has more frames than were loaded."""

    source: str
    frames: Count
    complete: bool
    first_frame_wh: tuple[Count, Count]
    memory_mib: Number
    pixels_sha256: Sha256


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The user's settings of a benchmark."""

    seconds: Number
    min_iterations: Count
    processes: Count
    batch: Count
    seed: Count
    cool_down_s: Number
    allow_throttled: bool
    intra_op_threads: tuple[Count, ...]
    detector_size_px: Count | None = None


class BoardInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The machine; see `edgekit.boards.Board`."""

    model: str | None
    cpu: str | None
    cpu_part: str | None
    processors: Count | None
    architecture: str
    userland_bits: Count
    memory_total_mib: Count | None
    os_release: str | None
    kernel: str | None
    python: str
    virtualization: Literal["none", "virtual machine", "emulator"] | None


class BoardResult(msgspec.Struct, frozen=True, kw_only=True, rename={"frame_cache": "clip"}):
    """One board with settings and results. `label` is the user's name for the board; null if there is only one board.
    `notes` are conditions that the user has given, such as fan, power supply and ambient temperature. `complete` is
    false if the measurement was interrupted. `measured_utc` is set in merged reports: `created_utc` of the board's own
    report.
    """

    label: str | None
    board: BoardInfo
    versions: dict[str, str]
    notes: dict[str, str]
    settings: Settings
    complete: bool
    before: BoardState
    after: BoardState
    frame_cache: FrameCacheInfo | None
    models: tuple[ModelInfo, ...]
    cells: Annotated[tuple[CellResult, ...], Meta(min_length=1)]
    # Since 2.1.
    measured_utc: str | None = None


class HostOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """Overhead of a measurement over SSH (time until it started, bytes sent), or the error in one line."""

    label: str
    error: str | None
    overhead_s: Number | None
    sent_bytes: Count


class BenchmarkReport(msgspec.Struct, frozen=True, kw_only=True):
    """Speeds of models on one or several boards. Later minor versions may add fields.

    Example:
        >>> report = edgekit.benchmark(["float.onnx", "int8.onnx"], seconds=5)
        >>> for cell in report.boards[0].cells:
        ...     print(cell.model, cell.kind, cell.latency.p50_ms, cell.images_per_s)
    """

    schema: Annotated[str, Meta(pattern=r"^edgekit\.bench/2\.[0-9]+$")]
    created_utc: str
    boards: Annotated[tuple[BoardResult, ...], Meta(min_length=1)]
    hosts: tuple[HostOutcome, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether everything planned was measured."""
        return all(board.complete for board in self.boards)

    def as_document(self) -> dict[str, Any]:
        """Return the document, ready for JSON."""
        document: dict[str, Any] = msgspec.to_builtins(self)
        return document


def read_document(path: Path) -> BenchmarkReport:
    """Return the benchmark report in a file.

    Raises:
        InputError: The file is missing, or not a document that this version reads.
    """
    return parse_document(require_file(path, "report").read_bytes(), f"report '{path}'")


def parse_document(content: bytes, name: str) -> BenchmarkReport:
    """Return a benchmark report, validated and without control characters; `name` is its name in error messages.

    Documents of any schema 2.x are read as the current one.

    Raises:
        InputError: The document is not JSON, of another major version, or does not match the schema.
    """
    return from_document(parse_json(content, name, cure=": give the JSON file of 'edgekit bench -o'"), name)


def from_document(document: Any, name: str) -> BenchmarkReport:
    """Return the report of a parsed JSON document, with the current schema version.

    Args:
        document: The document, as the JSON parser returns it.
        name: Its name in error messages.

    Raises:
        InputError: The document is nested too deeply, of another major version, or does not match the schema.
    """
    try:
        cleaned = _cleaned(document)
    except RecursionError as error:
        raise InputError(f"{name} is nested too deeply: not a benchmark document") from error
    version = cleaned.get("schema") if isinstance(cleaned, dict) else None
    if isinstance(version, str) and not version.startswith(_READABLE):
        raise InputError(
            f"{name} has schema {version[:_SHOWN_CHARS]}, this edgekit reads {_READABLE}x: "
            "update edgekit or measure again"
        )
    report = convert(cleaned, BenchmarkReport, f"{name}: field")
    for index, board in enumerate(report.boards):
        _check_board(board, f"{name}: boards[{index}]")
    # All documents of 2.x have the fields of the current schema, some with their defaults.
    return msgspec.structs.replace(report, schema=SCHEMA)


def _cleaned(value: Any) -> Any:
    """Return a JSON value without characters that could harm a terminal; old kinds of measurement are renamed."""
    if isinstance(value, str):
        return _plain(value)
    if isinstance(value, list):
        return [*map(_cleaned, value)]
    if isinstance(value, dict):
        cleaned = {_plain(key): _cleaned(item) for key, item in value.items()}
        kind = cleaned.get("kind")
        if isinstance(kind, str):
            cleaned["kind"] = OLD_KINDS.get(kind, kind)
        return cleaned
    return value


def _plain(text: str) -> str:
    """Return a text without control, format, surrogate and private characters, and line or paragraph separators."""
    if text.isprintable():
        return text
    return "".join(char for char in text if unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp"))


def _check_board(board: BoardResult, name: str) -> None:
    """Check the relations between the values of a board, which the field types do not express.

    Raises:
        InputError: Values contradict each other; the message begins with `name`, and names the cell.
    """
    models = [model.name for model in board.models]
    if len(set(models)) < len(models):
        raise InputError(f"{name} lists a model twice")
    seen = set()
    for index, cell in enumerate(board.cells):
        where = f"{name}.cells[{index}]"
        if cell.model not in models:
            raise InputError(f"{where}: model '{cell.model[:_SHOWN_CHARS]}' is not among the board's models")
        if cell.key in seen:
            raise InputError(f"{where} is a duplicate")
        seen.add(cell.key)
        # No value is NaN here, because the field types have bounds.
        if cell.latency.p50_ms < _MIN_MEDIAN_MS:
            raise InputError(f"{where}: the median {cell.latency.p50_ms} ms is below {_MIN_MEDIAN_MS:g}")
        limits = cell.median_interval_ms
        if limits is not None and limits[0] > limits[1]:
            raise InputError(f"{where}: the interval's lower limit is above its upper limit")
        if cell.histogram.low_ms >= cell.histogram.high_ms:
            raise InputError(f"{where}: the histogram has no width")


def merge(reports: Sequence[BenchmarkReport], labels: Sequence[Sequence[str | None]] | None = None) -> BenchmarkReport:
    """Return one report with the boards of several, in their order, as `edgekit bench --host A --host B` writes it.

    Args:
        reports: Validated reports.
        labels: For each report, the new label of each board; None: no label. Default: the boards keep their labels.

    Raises:
        InputError: There is no report.
    """
    if not reports:
        raise InputError("no report to merge: give at least one")
    boards: list[BoardResult] = []
    hosts: list[HostOutcome] = []
    labels = labels or [[board.label for board in report.boards] for report in reports]
    for report, names in zip(reports, labels, strict=True):
        named = list(zip(report.boards, names, strict=True))
        for board, name in named:
            measured_utc = board.measured_utc or report.created_utc  # only merged reports have `measured_utc`
            boards.append(msgspec.structs.replace(board, label=name, measured_utc=measured_utc))
        # An entry of `hosts` refers to its board by the label. The entry of a host without results keeps its label.
        new_labels = {board.label: name for board, name in named if name is not None}
        for host in report.hosts:
            hosts.append(msgspec.structs.replace(host, label=new_labels.get(host.label, host.label)))
    created_utc = datetime.now(UTC).isoformat(timespec="seconds")
    return BenchmarkReport(schema=SCHEMA, created_utc=created_utc, boards=tuple(boards), hosts=tuple(hosts))
