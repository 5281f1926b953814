"""A report as one self-contained HTML page: charts inline, no scripts, nothing is fetched.

Charts are positions and sizes in percent of a drawing, which the template draws as SVG.

The template engine escapes every text. The page's content security policy allows only its own style sheet, so that a
fault in the escaping could not run code either.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from edgekit.report import view
from edgekit.report.document import ANY_KINDS, AnyKind, BenchmarkReport, BoardResult, CellResult, Histogram
from edgekit.text import counted

_FOLDER = Path(__file__).parent
# With more cells than this, only the first model's distributions are unfolded.
_OPEN_CELLS = 6
_COLOURS = 6
_MAX_POINTS = 600


def to_html(report: BenchmarkReport) -> str:
    """Return the report as an HTML page."""
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # The functions of this module that the template calls.
    called = [bars, cell_name, colour_of, distribution, duration_s, kinds_of, stage_names, stages, throttled, timeline]
    environment.globals |= {function.__name__: function for function in called}
    style = (_FOLDER / "page.css").read_text()
    # With its hash in the policy, the browser accepts this style sheet only, and no script.
    style_sha256 = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    report = view.with_short_names(report)
    boards = report.boards
    return environment.get_template("page.html.jinja").render(
        report=report,
        title=view.board_title(boards[0]) if len(boards) == 1 else f"{len(boards)} boards",
        style=Markup(style),
        policy=f"default-src 'none'; style-src 'sha256-{style_sha256}'; base-uri 'none'; form-action 'none'",
        view=view,
        open_cells=_OPEN_CELLS,
        colours=_COLOURS,
    )


@dataclass(frozen=True)
class Box:
    """A rectangle; `css` is the class of its colour, `title` its tooltip."""

    left: float
    width: float
    height: float = 100
    css: str = ""
    title: str = ""


@dataclass(frozen=True)
class Bar:
    """A cell with its median as a bar, and the 95 % interval of the median as a whisker (left, right)."""

    cell: CellResult
    width: float
    whisker: tuple[float, float] | None


@dataclass(frozen=True)
class Panel:
    """Curves over the time of the benchmark between the values `low` and `high`; a curve is (css, points of SVG)."""

    title: str
    low: float
    high: float
    curves: list[tuple[str, str]]


def colour_of(board: BoardResult, model: str) -> str:
    """Return the CSS class of a model's colour, the same in every chart."""
    names = [one.name for one in board.models]
    return f"c{names.index(model) % _COLOURS}"


def kinds_of(board: BoardResult) -> list[AnyKind]:
    """Return the kinds of measurement that a board has cells of, in the order of tables."""
    return [kind for kind in ANY_KINDS if any(cell.kind == kind for cell in board.cells)]


def cell_name(cell: CellResult) -> str:
    """Return the threads of a cell, and its engine if it is another than ONNX Runtime."""
    engine = "" if cell.engine == "onnxruntime" else f", {cell.engine}"
    return counted(cell.intra_op_threads, "thread") + engine


def bars(board: BoardResult, kind: AnyKind) -> list[Bar]:
    """Return one bar per cell of a kind, the fastest cell first; `kind` is one of `kinds_of(board)`."""
    cells = sorted((cell for cell in board.cells if cell.kind == kind), key=lambda cell: cell.latency.p50_ms)
    longest_ms = cells[-1].latency.p50_ms
    upper_limits_ms = [cell.median_interval_ms[1] for cell in cells if cell.median_interval_ms is not None]
    # The end of the axis is limited, since one very wide interval would make all bars invisible.
    end_ms = min(max([longest_ms, *upper_limits_ms]), 2 * longest_ms)
    drawn = []
    for cell in cells:
        whisker = None
        if cell.median_interval_ms is not None:
            low_ms, high_ms = cell.median_interval_ms
            # Its two ends, in percent of the axis.
            whisker = (min(100 * low_ms / end_ms, 100), min(100 * high_ms / end_ms, 100))
        drawn.append(Bar(cell, width=100 * cell.latency.p50_ms / end_ms, whisker=whisker))
    return drawn


def distribution(cell: CellResult) -> tuple[list[Box], float, Box | None]:
    """Return the histogram of a cell's latencies, the median, and the median's 95 % interval.

    All three are in percent of the drawing's width.
    """
    bins = cell.histogram
    bin_count, highest_count = len(bins.counts), max(bins.counts) or 1  # not 0: a divisor
    bin_ms, bin_width = (bins.high_ms - bins.low_ms) / bin_count, 100 / bin_count
    boxes = []
    for index, count in enumerate(bins.counts):
        start_ms = bins.low_ms + index * bin_ms
        title = f"{view.ms(start_ms)} to {view.ms(start_ms + bin_ms)} ms: {count}"
        # Nine tenths of the width, so that there is a gap between two bars.
        boxes.append(Box(index * bin_width, 0.9 * bin_width, height=100 * count / highest_count, title=title))
    band = None
    if cell.median_interval_ms is not None:
        left, right = (_position(bins, limit_ms) for limit_ms in cell.median_interval_ms)
        band = Box(left, max(right - left, 0.3), css="band")  # never too narrow to be seen
    return boxes, _position(bins, cell.latency.p50_ms), band


def _position(bins: Histogram, value_ms: float) -> float:
    """Return where a latency is in the drawing of a histogram, in percent of the width, at most at an edge."""
    percent = 100 * (value_ms - bins.low_ms) / (bins.high_ms - bins.low_ms)
    return min(max(percent, 0), 100)


def stage_names(board: BoardResult) -> list[str]:
    """Return the names of the stages of all cells, each once."""
    return list(dict.fromkeys(name for cell in board.cells for name in cell.stages))


def stages(board: BoardResult) -> list[tuple[CellResult, float, list[Box]]]:
    """Return for each cell with stages the time per frame in milliseconds, and one box per stage, side by side."""
    cells = [cell for model in board.models for cell in view.cells_of(board, model.name) if cell.stages]
    # For each cell the milliseconds per frame of each stage.
    times_ms = [_stage_times_ms(cell) for cell in cells]
    longest_ms = max((sum(times.values()) for times in times_ms), default=0) or 1  # not 0: a divisor
    names = stage_names(board)
    rows = []
    for cell, times in zip(cells, times_ms, strict=True):
        total_ms = sum(times.values())
        boxes: list[Box] = []
        left = 0.0
        for name, time_ms in times.items():
            width = 100 * time_ms / longest_ms
            title = f"{name}: {view.ms(time_ms)} ms, {time_ms / (total_ms or 1):.0%}"  # the share of the frame's time
            boxes.append(Box(left, width, css=f"c{names.index(name) % _COLOURS}", title=title))
            left += width
        rows.append((cell, total_ms, boxes))
    return rows


def _stage_times_ms(cell: CellResult) -> dict[str, float]:
    """Return the mean time of each stage over all frames, although the detector does not run in every frame."""
    # The number of frames is that of a stage which runs in every frame.
    frames = max(stage.count for stage in cell.stages.values())
    return {name: stage.mean_ms * stage.count / frames for name, stage in cell.stages.items()}


def duration_s(board: BoardResult) -> float:
    """Return the time from the start of the benchmark to the end of the last process."""
    return max(process.started_s + process.elapsed_s for cell in board.cells for process in cell.processes)


def throttled(board: BoardResult) -> list[Box]:
    """Return one box per throttled process, at its time in percent of the benchmark's duration."""
    percent_per_s = 100 / (duration_s(board) or 1)  # no division by 0
    boxes = []
    for cell in board.cells:
        for process in cell.processes:
            if "throttled" in process.quality_flags:
                left, width = process.started_s * percent_per_s, process.elapsed_s * percent_per_s
                boxes.append(Box(left, width, css="alarm", title="throttled"))
    return boxes


def timeline(board: BoardResult) -> list[Panel]:
    """Return charts of speed, temperature and clock over the benchmark; those without readings have no curves.

    Speed is in percent of each cell's mean, so that all cells share one axis.
    """
    processes = [(cell, process) for cell in board.cells for process in cell.processes]
    max_points = max(2, _MAX_POINTS // len(processes))  # of each process
    # One curve of speed per process, and one curve of the board's temperature and of its clock over all processes.
    speeds: list[tuple[str, list[tuple[float, float]]]] = []
    temperatures, clocks = [], []
    for cell, process in processes:
        step = len(process.during) // max_points + 1
        speed = []
        for reading in process.during[::step]:
            at_s = process.started_s + reading.at_s
            speed.append((at_s, 100 * reading.images_per_s / cell.images_per_s))
            if reading.temperature_c is not None:
                temperatures.append((at_s, reading.temperature_c))
            if reading.clock_mhz is not None:
                clocks.append((at_s, reading.clock_mhz))
        speeds.append((colour_of(board, cell.model), speed))
    end_s = duration_s(board) or 1  # not 0: charts divide by it
    # Temperature and clock are sorted by time, because `processes` are in the order of the cells.
    return [
        _panel("speed, % of the cell's mean", speeds, end_s),
        _panel("temperature, °C", [("c1", sorted(temperatures))], end_s),
        _panel("clock, MHz", [("c2", sorted(clocks))], end_s),
    ]


def _panel(title: str, curves: Sequence[tuple[str, list[tuple[float, float]]]], end_s: float) -> Panel:
    """Return a chart of curves over the time from 0 to `end_s`; a curve without points is left out.

    A curve is the class of its colour, and its points (seconds since the start of the benchmark, value).
    """
    values = [value for _, points in curves for _, value in points] or [0.0]  # no curve has points
    lowest, highest = min(values), max(values)
    # A margin of 10 % on both sides. The axis covers at least 5 % of the value, and at least 1, so that noise does not
    # fill the panel.
    span = max((highest - lowest) * 1.2, highest * 0.05, 1.0)
    low = (highest + lowest - span) / 2
    drawn = []
    for css, points in curves:
        if not points:
            continue
        # In percent of width and height; SVG counts y from the top.
        texts = [f"{100 * at_s / end_s:.2f},{100 - 100 * (value - low) / span:.2f}" for at_s, value in points]
        if len(texts) == 1:
            texts *= 2  # SVG draws a line from a point to itself as a dot
        drawn.append((css, " ".join(texts)))
    return Panel(title, low, low + span, drawn)
