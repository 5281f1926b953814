"""The drawings of a report, each from one board's or one cell's part of the document."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Any

from edgekit.report import view
from edgekit.report.svg import WIDTH, Scale, box, image, line, number, path, text, ticks

COLOURS = 6
_MAX_POINTS = 600
_LEFT, _RIGHT = 40.0, WIDTH - 8.0


def colour_of(entry: view.Entry, model: str) -> str:
    """Return the style sheet's class for a model, the same in every drawing."""
    names = [one["name"] for one in entry["models"]]
    return f"c{names.index(model) % COLOURS}"


def cell_name(cell: view.CellDocument, with_model: bool = True) -> str:
    """Return what a cell is called in a drawing."""
    threads = cell["intra_op_threads"]
    name = f"{threads} thread{'s' if threads > 1 else ''}"
    if cell["engine"] != "onnxruntime":
        name += f", {cell['engine']}"
    return f"{PurePath(cell['model']).name}, {name}" if with_model else name


def comparison(entry: view.Entry, kind: str) -> str:
    """Return bars of the medians of one kind of work, whiskers for their intervals, the models' colours."""
    cells = sorted(
        (cell for cell in entry["cells"] if cell["kind"] == kind), key=lambda cell: float(cell["latency"]["p50_ms"])
    )
    most = max(max(cell["latency"]["p50_ms"], (cell["median_interval_ms"] or (0, 0))[1]) for cell in cells)
    # An interval many times as long as its median would squeeze all bars to nothing.
    most = min(most, 2 * max(cell["latency"]["p50_ms"] for cell in cells))
    across = Scale(0, most, 2, WIDTH - 8)
    row = 36
    height = len(cells) * row + 20
    parts = []
    for tick in ticks(0, most, 5):
        parts.append(line(across(tick), 0, across(tick), height - 16, "grid"))
        parts.append(text(across(tick), height - 4, number(tick), "tick", "start" if tick == 0 else "middle"))
    for index, cell in enumerate(cells):
        top = index * row
        middle = top + 25
        median = cell["latency"]["p50_ms"]
        marks = f" ({', '.join(cell['marks'])})" if cell["marks"] else ""
        parts.append(text(2, top + 12, cell_name(cell) + marks))
        parts.append(text(WIDTH - 2, top + 12, f"{view.ms(median)} ms", "strong", "end"))
        parts.append(box(across(0), middle - 7, across(median) - across(0), 14, colour_of(entry, cell["model"])))
        if cell["median_interval_ms"]:
            low, high = (across(limit) for limit in cell["median_interval_ms"])
            parts.append(line(low, middle, high, middle, "whisker"))
            parts += [line(end, middle - 4, end, middle + 4, "whisker") for end in (low, high)]
    return image(parts, height, f"Median latency in milliseconds, {kind}")


def distribution(entry: view.Entry, cell: view.CellDocument) -> str:
    """Return the histogram of a cell's latencies with the median and its interval."""
    bins = cell["histogram"]
    counts, low, high = bins["counts"], bins["low_ms"], bins["high_ms"]
    across = Scale(low, high, 4, WIDTH - 8)
    base, top = 96.0, 10.0
    width = (across.to_px - across.from_px) / len(counts)
    most = max(counts) or 1
    parts = []
    if cell["median_interval_ms"]:
        left, right = (across(limit) for limit in cell["median_interval_ms"])
        parts.append(box(left, top - 6, max(right - left, 1), base - top + 6, "band", "95 % interval of the median"))
    for index, count in enumerate(counts):
        size = count / most * (base - top)
        step = (high - low) / len(counts)
        title = f"{view.ms(low + index * step)} to {view.ms(low + (index + 1) * step)} ms: {count}"
        bar = box(
            across.from_px + index * width, base - size, width - 0.6, size, colour_of(entry, cell["model"]), title
        )
        parts.append(bar)
    median = across(cell["latency"]["p50_ms"])
    parts.append(line(median, top - 6, median, base, "median"))
    parts.append(line(across.from_px, base, across.to_px, base, "axis"))
    parts += [text(across(tick), base + 13, number(tick), "tick", "middle") for tick in ticks(low, high)]
    beyond = f"{bins['above']} of {cell['latency']['count']} beyond, up to {view.ms(cell['latency']['max_ms'])} ms"
    parts.append(text(WIDTH - 8, base + 28, beyond, "tick", "end"))
    parts.append(text(4, base + 28, "ms", "tick"))
    return image(parts, base + 33, f"Distribution of latencies, {cell['kind']}, {cell_name(cell)}")


def rates(entry: view.Entry, cell: view.CellDocument) -> str:
    """Return a cell's images a second over the time each of its processes ran, one line a process."""
    processes = [process for process in cell["processes"] if process["during"]]
    seconds = max((process["during"][-1]["at_s"] for process in processes), default=0)
    values = [reading["images_per_s"] for process in processes for reading in process["during"]]
    if not values or seconds <= 0:
        return ""
    most = max(values) * 1.1
    across, up = Scale(0, seconds, _LEFT, _RIGHT), Scale(0, most, 74, 6)
    parts = _frame(across, up, 6, 74, ticks(0, most, 3), number)
    for process in processes:
        points = [(across(one["at_s"]), up(one["images_per_s"])) for one in _thinned(process["during"], 200)]
        parts.append(path(points, colour_of(entry, cell["model"])))
    parts += [text(across(tick), 87, number(tick), "tick", "middle") for tick in ticks(0, seconds)]
    parts.append(text(4, 87, "s", "tick"))
    return image(parts, 92, f"Images a second over time, {cell['kind']}, {cell_name(cell)}")


def stages(entry: view.Entry) -> str:
    """Return the mean time of each stage of the pipelines, stacked."""
    cells = view.ordered([cell for cell in entry["cells"] if cell["stages"]])
    names = list(dict.fromkeys(name for cell in cells for name in cell["stages"]))
    totals = [sum(stage["mean_ms"] for stage in cell["stages"].values()) for cell in cells]
    most = max(totals) or 1
    across = Scale(0, most, 2, WIDTH - 8)
    parts, x = [], 2.0
    for index, name in enumerate(names):
        parts.append(box(x, 2, 10, 10, f"s{index % COLOURS}"))
        parts.append(text(x + 14, 11, name))
        x += 14 + 7 * len(name) + 12
    top, row = 24.0, 36.0
    height = top + len(cells) * row + 16
    for tick in ticks(0, most, 5):
        parts.append(line(across(tick), top, across(tick), height - 16, "grid"))
        parts.append(text(across(tick), height - 4, number(tick), "tick", "start" if tick == 0 else "middle"))
    for cell, total in zip(cells, totals, strict=True):
        parts.append(text(2, top + 12, cell_name(cell)))
        parts.append(text(WIDTH - 2, top + 12, f"{view.ms(total)} ms", "strong", "end"))
        left = 0.0
        for name, stage in cell["stages"].items():
            mean = stage["mean_ms"]
            title = f"{name}: {view.ms(mean)} ms, {mean / (total or 1):.0%}"
            start, end = across(left), across(left + mean)
            parts.append(box(start, top + 18, end - start, 14, f"s{names.index(name) % COLOURS}", title))
            left += mean
        top += row
    return image(parts, height, "Mean time of each stage of the pipeline in milliseconds")


def timeline(entry: view.Entry) -> str:
    """Return speed, temperature and clock over the whole benchmark, one below the other, throttled times shaded.

    Speed is in percent of each cell's own, so that cells of any speed share the axis.
    """
    processes = [(cell, process) for cell in entry["cells"] for process in cell["processes"]]
    end = max(process["started_s"] + process["elapsed_s"] for _, process in processes)
    across = Scale(0, end, _LEFT, _RIGHT)
    parts = []
    for _, process in processes:
        if "throttled" in process["marks"]:
            start, width = across(process["started_s"]), across(process["elapsed_s"]) - across(0)
            parts.append(box(start, 14, width, 262, "alarm", "throttled"))
    share = max(1, len(processes))
    speeds: list[tuple[str, list[tuple[float, float]]]] = []
    temperatures: list[tuple[float, float]] = []
    clocks: list[tuple[float, float]] = []
    for cell, process in processes:
        readings = _thinned(process["during"], max(2, _MAX_POINTS // share))
        at = [process["started_s"] + reading["at_s"] for reading in readings]
        relative = [100 * reading["images_per_s"] / cell["images_per_s"] for reading in readings]
        speeds.append((colour_of(entry, cell["model"]), list(zip(at, relative, strict=True))))
        for values, key in ((temperatures, "temperature_c"), (clocks, "clock_mhz")):
            values += [(when, one[key]) for when, one in zip(at, readings, strict=True) if one[key] is not None]
    parts += _panel(across, 14, "speed, % of the cell's own", [one for one in speeds if one[1]])
    parts += _panel(across, 110, "temperature, °C", [("heat", sorted(temperatures))] if temperatures else [])
    parts += _panel(across, 206, "clock, MHz", [("clock", sorted(clocks))] if clocks else [])
    parts += [text(across(tick), 290, number(tick), "tick", "middle") for tick in ticks(0, end)]
    parts.append(text(4, 290, "s", "tick"))
    return image(parts, 296, "Speed, temperature and clock over the time of the benchmark")


def _panel(across: Scale, top: float, title: str, curves: Sequence[tuple[str, list[tuple[float, float]]]]) -> list[str]:
    bottom = top + 70
    if not curves:
        return [text(_LEFT, top, title, "tick"), text(_LEFT, top + 36, "not told by this machine", "tick")]
    values = [value for _, points in curves for _, value in points]
    least, most = min(values), max(values)
    # Noise of a percent should look like one.
    room = max((most - least) * 0.1, most * 0.05 - (most - least) / 2, 1.0)
    up = Scale(least - room, most + room, bottom, top + 6)
    parts = [text(_LEFT, top, title, "tick")]
    parts += _frame(across, up, top + 6, bottom, ticks(up.low, up.high, 3), number)
    for css, points in curves:
        parts.append(path([(across(when), up(value)) for when, value in points], css))
    return parts


def _frame(
    across: Scale, up: Scale, top: float, bottom: float, values: Sequence[float], show: Callable[[float], str]
) -> list[str]:
    parts = [line(across.from_px, bottom, across.to_px, bottom, "axis")]
    for value in values:
        y = up(value)
        if top <= y <= bottom:
            parts.append(line(across.from_px, y, across.to_px, y, "grid"))
            parts.append(text(across.from_px - 4, y + 4, show(value), "tick", "end"))
    return parts


def _thinned(readings: Sequence[Any], most: int) -> Sequence[Any]:
    return readings[:: max(1, -(-len(readings) // most))]
