"""The charts of a report as SVG, each of one board or one cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from markupsafe import Markup

from edgekit.report import view
from edgekit.report.document import BoardResult, CellResult, Kind
from edgekit.report.svg import WIDTH, Scale, box, image, line, number, path, text, ticks
from edgekit.text import counted

_T = TypeVar("_T")

COLOURS = 6
_MAX_POINTS = 600
_LEFT, _RIGHT = 40.0, WIDTH - 8.0
_ROW_PX = 36.0
_FLAGS_PX = 13.0
# Longest text above a bar, which leaves room for the time at the right end.
_MAX_NAME_CHARS = 46


def colour_of(board: BoardResult, model: str) -> str:
    """Return the CSS class of a model's colour, the same in every chart."""
    names = [one.name for one in board.models]
    return f"c{names.index(model) % COLOURS}"


def cell_name(cell: CellResult, with_model: bool = True) -> str:
    """Return a cell's name in charts."""
    name = counted(cell.intra_op_threads, "thread")
    if cell.engine != "onnxruntime":
        name += f", {cell.engine}"
    return f"{cell.model}, {name}" if with_model else name


def _bar_name(cell: CellResult, suffix: str = "") -> str:
    """Return the text above a bar; of a long file name, the middle is left out."""
    model = cell.model
    suffix = f", {cell_name(cell, with_model=False)}{suffix}"
    excess = len(model) + len(suffix) - _MAX_NAME_CHARS
    if excess > 0:
        kept = max(2, len(model) - excess - 1)
        model = f"{model[: kept - kept // 2]}…{model[-(kept // 2) :]}"
    return model + suffix


def comparison(board: BoardResult, kind: Kind) -> Markup:
    """Return a bar chart of the median latencies of one kind, with whiskers for the 95 % intervals."""
    cells = sorted((cell for cell in board.cells if cell.kind == kind), key=lambda cell: cell.latency.p50_ms)
    longest_ms = max(cell.latency.p50_ms for cell in cells)
    # Limited, since one very wide interval would make all bars invisible.
    end_ms = min(max(longest_ms, *((cell.median_interval_ms or (0, 0))[1] for cell in cells)), 2 * longest_ms)
    across = Scale(0, end_ms, 2, WIDTH - 8)
    height = len(cells) * _ROW_PX + sum(_FLAGS_PX for cell in cells if cell.quality_flags) + 20
    parts = _bar_axis(across, 0, height)
    top = 0.0
    for cell in cells:
        median_ms = cell.latency.p50_ms
        parts.append(text(2, top + 12, _bar_name(cell)))
        parts.append(text(WIDTH - 2, top + 12, f"{view.ms(median_ms)} ms", "strong", "end"))
        if cell.quality_flags:
            parts.append(text(2, top + 24, ", ".join(cell.quality_flags), "tick"))
            top += _FLAGS_PX
        middle = top + 25
        parts.append(box(across(0), middle - 7, across(median_ms) - across(0), 14, colour_of(board, cell.model)))
        if cell.median_interval_ms:
            low, high = (across(limit) for limit in cell.median_interval_ms)
            parts.append(line(low, middle, high, middle, "whisker"))
            ends = [across(limit) for limit in cell.median_interval_ms if limit <= end_ms]
            parts += [line(end, middle - 4, end, middle + 4, "whisker") for end in ends]
        top += _ROW_PX
    return image(parts, height, f"Median latency in milliseconds, {kind}")


def distribution(board: BoardResult, cell: CellResult) -> Markup:
    """Return the histogram of a cell's latencies with the median and its 95 % interval."""
    bins = cell.histogram
    across = Scale(bins.low_ms, bins.high_ms, 4, WIDTH - 8)
    base, top = 96.0, 10.0
    bar_px = (across.to_px - across.from_px) / len(bins.counts)
    bin_ms = (bins.high_ms - bins.low_ms) / len(bins.counts)
    largest = max(bins.counts) or 1
    colour = colour_of(board, cell.model)
    parts = []
    if cell.median_interval_ms:
        left, right = (across(limit) for limit in cell.median_interval_ms)
        parts.append(box(left, top - 6, max(right - left, 1), base - top + 6, "band", "95 % interval of the median"))
    for index, count in enumerate(bins.counts):
        height = count / largest * (base - top)
        from_ms = bins.low_ms + index * bin_ms
        title = f"{view.ms(from_ms)} to {view.ms(from_ms + bin_ms)} ms: {count}"
        parts.append(box(across.from_px + index * bar_px, base - height, bar_px - 0.6, height, colour, title))
    median = across(cell.latency.p50_ms)
    parts.append(line(median, top - 6, median, base, "median"))
    parts.append(line(across.from_px, base, across.to_px, base, "axis"))
    parts += [
        text(across(tick), base + 13, number(tick), "tick", "middle") for tick in ticks(bins.low_ms, bins.high_ms)
    ]
    above = f"{bins.above} of {cell.latency.count} above, up to {view.ms(cell.latency.max_ms)} ms"
    parts.append(text(WIDTH - 8, base + 28, above, "tick", "end"))
    parts.append(text(4, base + 28, "ms", "tick"))
    return image(parts, base + 33, f"Distribution of latencies, {cell.kind}, {cell_name(cell)}")


def stages(board: BoardResult) -> Markup:
    """Return a stacked bar chart of the mean time per frame of each pipeline stage, one bar per cell.

    A stage's mean is over all frames, although the detector does not run in every frame of a loop.
    """
    cells = [cell for model in board.models for cell in view.cells_of(board, model.name) if cell.stages]
    means_ms = [
        {
            name: stage.mean_ms * stage.count / max(stage.count for stage in cell.stages.values())
            for name, stage in cell.stages.items()
        }
        for cell in cells
    ]
    names = list(dict.fromkeys(name for stage_ms in means_ms for name in stage_ms))
    across = Scale(0, max(sum(stage_ms.values()) for stage_ms in means_ms) or 1, 2, WIDTH - 8)
    parts, x, y = [], 2.0, 2.0
    for index, name in enumerate(names):
        width = 14 + 7 * len(name) + 12
        if x + width > WIDTH:
            x, y = 2.0, y + 14
        parts.append(box(x, y, 10, 10, f"s{index % COLOURS}"))
        parts.append(text(x + 14, y + 9, name))
        x += width
    top = y + 22
    height = top + len(cells) * _ROW_PX + 16
    parts += _bar_axis(across, top, height)
    for cell, stage_ms in zip(cells, means_ms, strict=True):
        total_ms = sum(stage_ms.values())
        parts.append(text(2, top + 12, _bar_name(cell, f", {cell.kind}")))
        parts.append(text(WIDTH - 2, top + 12, f"{view.ms(total_ms)} ms", "strong", "end"))
        left_ms = 0.0
        for name, mean_ms in stage_ms.items():
            title = f"{name}: {view.ms(mean_ms)} ms, {mean_ms / (total_ms or 1):.0%}"
            start, end = across(left_ms), across(left_ms + mean_ms)
            parts.append(box(start, top + 18, end - start, 14, f"s{names.index(name) % COLOURS}", title))
            left_ms += mean_ms
        top += _ROW_PX
    return image(parts, height, "Mean time per frame of each stage in milliseconds")


def timeline(board: BoardResult) -> Markup:
    """Return charts of speed, temperature and clock over the benchmark, with throttled times shaded.

    Speed is in percent of each cell's mean, so that all cells share one axis.
    """
    processes = [(cell, process) for cell in board.cells for process in cell.processes]
    across = Scale(0, max(process.started_s + process.elapsed_s for _, process in processes), _LEFT, _RIGHT)
    parts = []
    speeds: list[tuple[str, list[tuple[float, float]]]] = []
    temperatures: list[tuple[float, float]] = []
    clocks: list[tuple[float, float]] = []
    for cell, process in processes:
        if "throttled" in process.quality_flags:
            start, width = across(process.started_s), across(process.elapsed_s) - across(0)
            parts.append(box(start, 14, width, 262, "alarm", "throttled"))
        readings = [
            (process.started_s + reading.at_s, reading)
            for reading in _thinned(process.during, max(2, _MAX_POINTS // len(processes)))
        ]
        speed = [(at_s, 100 * reading.images_per_s / cell.images_per_s) for at_s, reading in readings]
        speeds += [(colour_of(board, cell.model), speed)] if speed else []
        temperatures += [(at_s, one.temperature_c) for at_s, one in readings if one.temperature_c is not None]
        clocks += [(at_s, one.clock_mhz) for at_s, one in readings if one.clock_mhz is not None]
    parts += _panel(across, 14, "speed, % of the cell's mean", speeds)
    parts += _panel(across, 110, "temperature, °C", [("heat", sorted(temperatures))] if temperatures else [])
    parts += _panel(across, 206, "clock, MHz", [("clock", sorted(clocks))] if clocks else [])
    parts += [text(across(tick), 290, number(tick), "tick", "middle") for tick in ticks(0, across.high)]
    parts.append(text(4, 290, "s", "tick"))
    return image(parts, 296, "Speed, temperature and clock over the time of the benchmark")


def _bar_axis(across: Scale, top: float, height: float) -> list[Markup]:
    parts = []
    for tick in ticks(0, across.high, 5):
        parts.append(line(across(tick), top, across(tick), height - 16, "grid"))
        parts.append(text(across(tick), height - 4, number(tick), "tick", "start" if tick == 0 else "middle"))
    return parts


def _panel(
    across: Scale, top: float, title: str, curves: Sequence[tuple[str, list[tuple[float, float]]]]
) -> list[Markup]:
    parts = [text(_LEFT, top, title, "tick")]
    if not curves:
        return [*parts, text(_LEFT, top + 36, "not available on this machine", "tick")]
    values = [value for _, points in curves for _, value in points]
    least, most = min(values), max(values)
    # The axis covers at least 5 % of the value, so that noise does not fill the panel.
    room = max((most - least) * 0.1, most * 0.05 - (most - least) / 2, 1.0)
    up = Scale(least - room, most + room, top + 70, top + 6)
    parts += _frame(across, up, top + 6, top + 70, ticks(up.low, up.high, 3))
    parts += [path([(across(at_s), up(value)) for at_s, value in points], css) for css, points in curves]
    return parts


def _frame(across: Scale, up: Scale, top: float, bottom: float, values: Sequence[float]) -> list[Markup]:
    parts = [line(across.from_px, bottom, across.to_px, bottom, "axis")]
    for value in values:
        y = up(value)
        if top <= y <= bottom:
            parts.append(line(across.from_px, y, across.to_px, y, "grid"))
            parts.append(text(across.from_px - 4, y + 4, number(value), "tick", "end"))
    return parts


def _thinned(readings: Sequence[_T], most: int) -> Sequence[_T]:
    return readings[:: max(1, -(-len(readings) // most))]
