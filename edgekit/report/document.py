"""The benchmark document `edgekit.bench/2.2` as typed structures; the published JSON Schema is generated from them.

`BenchmarkReport` is the whole document. Attributes have the names of the JSON fields, except `quality_flags` ("marks")
and `frame_cache` ("clip"). Times are in milliseconds (`_ms`) or seconds (`_s`), memory is in MiB.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias, get_args

import msgspec
from msgspec import Meta

SCHEMA = "edgekit.bench/2.2"
MAX_NAME_CHARS = 500
MAX_BOARDS = 200
MAX_ERROR_CHARS = 2000

# What is measured, in the order of tables. Documents before 2.2 have other names, and two kinds that are read only.
Kind: TypeAlias = Literal["net", "frame", "run"]
KINDS: tuple[Kind, ...] = get_args(Kind)
AnyKind: TypeAlias = Literal["net", "classifier", "frame", "run", "camera"]
ANY_KINDS: tuple[AnyKind, ...] = get_args(AnyKind)
OLD_KINDS: dict[str, Kind] = {"inference": "net", "pipeline": "frame", "per-frame": "frame", "loop": "run"}
QualityFlag: TypeAlias = Literal["throttled", "clock changed", "not warm", "busy"]

# Bounds keep what is computed from these values (ratios, logarithms, sums) finite.
_LARGEST = 10**12
_SMALLEST = 1e-6
Count: TypeAlias = Annotated[int, Meta(ge=0, le=_LARGEST)]
PositiveCount: TypeAlias = Annotated[int, Meta(ge=1, le=_LARGEST)]
Number: TypeAlias = Annotated[float, Meta(ge=0, le=_LARGEST)]
PositiveNumber: TypeAlias = Annotated[float, Meta(ge=_SMALLEST, le=_LARGEST)]
Temperature: TypeAlias = Annotated[float, Meta(ge=-1e6, le=1e6)]
ShortText: TypeAlias = Annotated[str, Meta(max_length=60)]
Text: TypeAlias = Annotated[str, Meta(max_length=200)]
Key: TypeAlias = Annotated[str, Meta(max_length=100)]
ModelName: TypeAlias = Annotated[str, Meta(max_length=MAX_NAME_CHARS)]
Sha256: TypeAlias = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
ThrottleFlags: TypeAlias = Annotated[
    str, Meta(pattern="^0x[0-9a-f]{1,8}$", max_length=10, description="What vcgencmd get_throttled prints.")
]
QualityFlags: TypeAlias = Annotated[tuple[QualityFlag, ...], Meta(max_length=10)]
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
    counts: Annotated[tuple[Count, ...], Meta(min_length=1, max_length=100)]
    above: Count


class ThrottleState(msgspec.Struct, frozen=True, kw_only=True):
    """Throttle flags of a Raspberry Pi, as a number and in words."""

    flags: ThrottleFlags
    now: Annotated[tuple[Text, ...], Meta(max_length=20)]
    since_boot: Annotated[tuple[Text, ...], Meta(max_length=20)]


class BoardState(msgspec.Struct, frozen=True, kw_only=True):
    """State of the board at one moment."""

    temperature_c: Temperature | None
    clock_mhz: Number | None
    clock_source: Literal["firmware", "cpufreq", "cpuinfo"] | None
    clock_min_mhz: Number | None
    clock_max_mhz: Number | None
    governor: ShortText | None
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
    during: Annotated[tuple[MachineReading, ...], Meta(max_length=5000)]
    after: BoardState
    quality_flags: QualityFlags


class RepeatedProcess(msgspec.Struct, frozen=True, kw_only=True, rename={"quality_flags": "marks"}):
    """A process that was discarded and measured again; `marks` are the reasons."""

    quality_flags: QualityFlags
    p50_ms: Number
    after: BoardState


class Energy(msgspec.Struct, frozen=True, kw_only=True):
    """Mean power of a cell and the energy per image."""

    mean_w: Number
    joules_per_image: Number


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
    model: ModelName
    engine: ShortText
    intra_op_threads: PositiveCount
    batch: PositiveCount
    detector: ShortText | None
    faces_per_frame: Number | None
    latency: Latency
    median_interval_ms: Interval | None
    images_per_s: PositiveNumber
    load_ms: Number
    resident_mib: Number
    histogram: Histogram
    stages: Annotated[dict[Key, Latency], Meta(max_length=20)]
    energy: Energy | None
    quality_flags: QualityFlags
    repeated: Annotated[tuple[RepeatedProcess, ...], Meta(max_length=1000)]
    processes: Annotated[tuple[ProcessResult, ...], Meta(min_length=1, max_length=1000)]
    age: Latency | None = None
    # Since 2.1.
    threads: ThreadUse | None = None

    @property
    def key(self) -> tuple[str, str, str, int, int]:
        """The values that identify a cell of a board: kind, model, engine, threads, batch."""
        return self.kind, self.model, self.engine, self.intra_op_threads, self.batch


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A measured model; `name` is the name that the user gave."""

    name: ModelName
    sha256: Sha256
    size_bytes: Count
    architecture: Text
    precision: ShortText
    input_hw: tuple[Count, Count]
    labels: Count


class FrameCacheInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The frames of the benchmark, in memory; `complete` is false if the source has more frames than were loaded."""

    source: ModelName
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
    intra_op_threads: Annotated[tuple[Count, ...], Meta(max_length=100)]
    detector_size_px: Count | None = None


class BoardInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The machine; see `edgekit.boards.Board`."""

    model: Text | None
    cpu: Text | None
    cpu_part: Annotated[str, Meta(max_length=40)] | None
    processors: Count | None
    architecture: Annotated[str, Meta(max_length=40)]
    userland_bits: Count
    memory_total_mib: Count | None
    os_release: Text | None
    kernel: Text | None
    python: Annotated[str, Meta(max_length=40)]
    virtualization: Literal["none", "virtual machine", "emulator"] | None


class BoardResult(msgspec.Struct, frozen=True, kw_only=True, rename={"frame_cache": "clip"}):
    """One board with settings and results. `label` is the user's name for the board; null if there is only one board.
    `notes` are conditions that the user has given, such as fan, power supply and ambient temperature. `complete` is
    false if the measurement was interrupted. `measured_utc` is set in merged reports: `created_utc` of the board's own
    report.
    """

    label: Annotated[str, Meta(max_length=100)] | None
    board: BoardInfo
    versions: Annotated[dict[Key, ShortText], Meta(max_length=50)]
    notes: Annotated[dict[Key, Text], Meta(max_length=30)]
    settings: Settings
    complete: bool
    before: BoardState
    after: BoardState
    frame_cache: FrameCacheInfo | None
    models: Annotated[tuple[ModelInfo, ...], Meta(max_length=200)]
    cells: Annotated[tuple[CellResult, ...], Meta(min_length=1, max_length=2000)]
    # Since 2.1.
    measured_utc: Annotated[str, Meta(max_length=40)] | None = None


class HostOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """Overhead of a measurement over SSH (time until it started, bytes sent), or the error in one line."""

    label: Text
    error: Annotated[str, Meta(max_length=MAX_ERROR_CHARS)] | None
    overhead_s: Number | None
    sent_bytes: Count


class BenchmarkReport(msgspec.Struct, frozen=True, kw_only=True):
    """Speeds of models on one or several boards. Later minor versions may add fields.

    Example:
        >>> report = edgekit.benchmark(["float.onnx", "int8.onnx"], seconds=5)
        >>> for cell in report.boards[0].cells:
        ...     print(cell.model, cell.kind, cell.latency.p50_ms, cell.images_per_s)
    """

    schema: Annotated[str, Meta(pattern=r"^edgekit\.bench/2\.[0-9]+$", max_length=40)]
    created_utc: Annotated[str, Meta(max_length=40)]
    boards: Annotated[tuple[BoardResult, ...], Meta(min_length=1, max_length=MAX_BOARDS)]
    hosts: Annotated[tuple[HostOutcome, ...], Meta(max_length=MAX_BOARDS)] = ()

    @property
    def complete(self) -> bool:
        """Whether everything planned was measured."""
        return all(board.complete for board in self.boards)

    def as_document(self) -> dict[str, Any]:
        """Return the document, ready for JSON."""
        document: dict[str, Any] = msgspec.to_builtins(self)
        return document
