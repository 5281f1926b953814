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
from edgekit.report.document import ANY_KINDS, AnyKind, BenchmarkReport, BoardResult, CellResult
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
    functions = (
        *(bars, cell_name, colour_of, distribution, duration_s),
        *(kinds_of, stage_names, stages, throttled, timeline),
    )
    environment.globals |= {function.__name__: function for function in functions}
    style = (_FOLDER / "page.css").read_text()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    report = view.with_short_names(report)
    boards = report.boards
    return environment.get_template("page.html.jinja").render(
        report=report,
        title=view.board_title(boards[0]) if len(boards) == 1 else f"{len(boards)} boards",
        style=Markup(style),
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
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
    """Return the cells of one kind, the fastest first."""
    cells = sorted((cell for cell in board.cells if cell.kind == kind), key=lambda cell: cell.latency.p50_ms)
    longest_ms = cells[-1].latency.p50_ms
    upper_limits_ms = [cell.median_interval_ms[1] for cell in cells if cell.median_interval_ms is not None]
    # Limited, since one very wide interval would make all bars invisible.
    end_ms = min(max([longest_ms, *upper_limits_ms]), 2 * longest_ms)

    def percent(value_ms: float) -> float:
        return min(100 * value_ms / end_ms, 100)

    found = []
    for cell in cells:
        limits = cell.median_interval_ms
        whisker = None if limits is None else (percent(limits[0]), percent(limits[1]))
        found.append(Bar(cell, percent(cell.latency.p50_ms), whisker))
    return found


def distribution(cell: CellResult) -> tuple[list[Box], float, Box | None]:
    """Return the histogram of a cell's latencies, the median, and the median's 95 % interval.

    All three are in percent of the drawing's width.
    """
    bins = cell.histogram
    span_ms, width = bins.high_ms - bins.low_ms, 100 / len(bins.counts)

    def percent(value_ms: float) -> float:
        return min(max(100 * (value_ms - bins.low_ms) / span_ms, 0), 100)

    boxes = []
    for index, count in enumerate(bins.counts):
        from_ms, to_ms = (bins.low_ms + span_ms * edge / len(bins.counts) for edge in (index, index + 1))
        title = f"{view.ms(from_ms)} to {view.ms(to_ms)} ms: {count}"
        # Nine tenths of the width, so that there is a gap between two bars.
        boxes.append(Box(index * width, width * 0.9, 100 * count / (max(bins.counts) or 1), title=title))
    limits = cell.median_interval_ms
    band = None
    if limits is not None:
        left, right = percent(limits[0]), percent(limits[1])
        band = Box(left, max(right - left, 0.3), css="band")  # never too narrow to be seen
    return boxes, percent(cell.latency.p50_ms), band


def stage_names(board: BoardResult) -> list[str]:
    """Return the names of the stages of all cells, each once."""
    return list(dict.fromkeys(name for cell in board.cells for name in cell.stages))


def stages(board: BoardResult) -> list[tuple[CellResult, float, list[Box]]]:
    """Return for each cell with stages the mean time per frame in milliseconds, and its parts.

    A stage's mean is over all frames, although the detector does not run in every frame of a loop.
    """
    names, found = stage_names(board), []
    cells = [cell for model in board.models for cell in view.cells_of(board, model.name) if cell.stages]
    for cell in cells:
        # The number of frames is that of a stage which runs in every frame.
        frames = max(stage.count for stage in cell.stages.values())
        means_ms = {name: stage.mean_ms * stage.count / frames for name, stage in cell.stages.items()}
        found.append((cell, sum(means_ms.values()), means_ms))
    longest_ms = max((total_ms for _, total_ms, _ in found), default=0) or 1
    rows = []
    for cell, total_ms, means_ms in found:
        boxes: list[Box] = []
        for name, mean_ms in means_ms.items():
            left = boxes[-1].left + boxes[-1].width if boxes else 0
            title = f"{name}: {view.ms(mean_ms)} ms, {mean_ms / (total_ms or 1):.0%}"
            boxes.append(Box(left, 100 * mean_ms / longest_ms, css=f"c{names.index(name) % _COLOURS}", title=title))
        rows.append((cell, total_ms, boxes))
    return rows


def duration_s(board: BoardResult) -> float:
    """Return the time from the start of the benchmark to the end of the last process."""
    return max(process.started_s + process.elapsed_s for cell in board.cells for process in cell.processes)


def throttled(board: BoardResult) -> list[Box]:
    """Return the times of throttled processes."""
    scale = 100 / (duration_s(board) or 1)
    processes = [process for cell in board.cells for process in cell.processes if "throttled" in process.quality_flags]
    return [
        Box(process.started_s * scale, process.elapsed_s * scale, css="alarm", title="throttled")
        for process in processes
    ]


def timeline(board: BoardResult) -> list[Panel]:
    """Return charts of speed, temperature and clock over the benchmark; those without readings have no curves.

    Speed is in percent of each cell's mean, so that all cells share one axis.
    """
    processes = [(cell, process) for cell in board.cells for process in cell.processes]
    most = max(2, _MAX_POINTS // len(processes))
    speeds, temperatures, clocks = [], [], []
    for cell, process in processes:
        readings = process.during[:: len(process.during) // most + 1]
        times_s = [process.started_s + one.at_s for one in readings]
        speed = [100 * one.images_per_s / cell.images_per_s for one in readings]
        speeds.append((colour_of(board, cell.model), [*zip(times_s, speed, strict=True)]))
        at_times = [*zip(times_s, readings, strict=True)]
        temperatures += [(at_s, one.temperature_c) for at_s, one in at_times if one.temperature_c is not None]
        clocks += [(at_s, one.clock_mhz) for at_s, one in at_times if one.clock_mhz is not None]
    end_s = duration_s(board) or 1
    return [
        _panel("speed, % of the cell's mean", speeds, end_s),
        _panel("temperature, °C", [("c1", sorted(temperatures))], end_s),
        _panel("clock, MHz", [("c2", sorted(clocks))], end_s),
    ]


def _panel(title: str, curves: Sequence[tuple[str, list[tuple[float, float]]]], end_s: float) -> Panel:
    values = [value for _, points in curves for _, value in points] or [0.0]
    # The axis covers at least 5 % of the value, so that noise does not fill the panel.
    span = max((max(values) - min(values)) * 1.2, max(values) * 0.05, 1.0)
    low = (max(values) + min(values) - span) / 2
    drawn = []
    for css, points in curves:
        texts = [f"{100 * at_s / end_s:.2f},{100 - 100 * (value - low) / span:.2f}" for at_s, value in points]
        drawn.append((css, " ".join(texts * 2 if len(texts) == 1 else texts)))  # a single point is a dot
    return Panel(title, low, low + span, [curve for curve in drawn if curve[1]])
