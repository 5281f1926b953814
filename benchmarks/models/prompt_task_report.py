"""Tables and plots of the cells that `prompt_tasks.py` measured."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from edgekit.files import write_atomic
from edgekit.models.evaluation.plots import save_figure

MEASURES = ("accuracy", "balanced")
METHOD = "HiCroPL"
_TITLES = {"accuracy": "accuracy", "balanced": "mean recall"}
# Accuracies 0..1 by seed, by (row, shots); zero-shot has 0 shots.
Series = dict[tuple[str, int], dict[int, Mapping[str, float]]]


def write_report(cells: Sequence[Mapping[str, Any]], folder: Path, clip: str) -> list[Path]:
    """Write one page with a table per source and target, and one plot per task; return the files."""
    tasks = list(dict.fromkeys(cell["task"] for cell in cells))
    page = ["# Tasks for prompts", "", f"CLIP: {clip}. Accuracy / balanced accuracy in percent, mean ± deviation.", ""]
    files = []
    for task in tasks:
        panels = panels_of([cell for cell in cells if cell["task"] == task])
        split = next(cell["split"] for cell in cells if cell["task"] == task)
        page += [f"## {task}, {split}", ""]
        for title, series in panels.items():
            page += [f"### {title}", "", *table(series), "", verdict(series), "", *differences([series]), ""]
        if len(panels) > 1:
            page += [f"### All of {task}", "", *differences(list(panels.values())), ""]
        notes = sorted({f"{c['source']}: {c['note']}" for c in cells if c["task"] == task and c["note"]})
        page += [*(f"Fewer images than shots, {note}." for note in notes), ""]
        files.append(folder / f"{task}-{split}.png")
        save_plot(files[-1], panels)
    files.append(folder / "tasks.md")
    write_atomic(files[-1], "\n".join(page).rstrip() + "\n")
    return files


def panels_of(cells: Sequence[Mapping[str, Any]]) -> dict[str, Series]:
    """Return the accuracies of a task by source and target."""
    panels: dict[str, Series] = defaultdict(lambda: defaultdict(dict))
    for cell in cells:
        for target, scores in cell["results"].items():
            title = cell["source"] if target == cell["source"] else f"{cell['source']} → {target}"
            panels[title][cell["row"], cell["shots"]][cell["seed"]] = scores
    return panels


def table(series: Series) -> list[str]:
    """Return the lines of a markdown table: one row per method, one column per number of shots."""
    shots = sorted({count for _, count in series if count})
    rows = list(dict.fromkeys(row for row, _ in series))
    lines = [f"| | {' | '.join(f'{count} shots' for count in shots)} |", f"|{' --- |' * (len(shots) + 1)}"]
    for row in rows:
        found = [series.get((row, count)) or series.get((row, 0)) for count in shots]
        lines.append(f"| {row} | {' | '.join(_cell(seeds) if seeds else '' for seeds in found)} |")
    return lines


def verdict(series: Series) -> str:
    """Return a sentence per measure: whether the best row of HiCroPL is higher than all other rows, and by how much."""
    most = max((count for _, count in series), default=0)
    sentences = []
    for measure in MEASURES:
        means = {}
        for (row, count), seeds in series.items():
            if count in (0, most):
                means[row] = _mean_and_spread([scores[measure] for scores in seeds.values()])
        own = {row: value for row, value in means.items() if row.startswith(METHOD)}
        others = {row: value for row, value in means.items() if row not in own}
        if not own or not others:
            continue
        row, (mean, spread) = max(own.items(), key=lambda item: item[1][0])
        other, (best, other_spread) = max(others.items(), key=lambda item: item[1][0])
        pooled = ((spread**2 + other_spread**2) / 2) ** 0.5
        within = "is higher, but within the spread, than"
        outcome = "is higher than" if mean - best > pooled else within if mean > best else "is not higher than"
        sentences.append(f"{measure} at {most} shots: {row} {outcome} {other} ({100 * (mean - best):+.1f} points)")
    return "; ".join(sentences) + "." if sentences else ""


def differences(panels: Sequence[Series]) -> list[str]:
    """Return the lines of a markdown table: rows of HiCroPL minus other rows on the same draws, in percentage points.

    Each cell is the mean over panels and seeds with its standard error, of both measures, and the number of comparisons
    in which HiCroPL is higher.
    """
    shots = sorted({count for series in panels for _, count in series if count})
    rows = list(dict.fromkeys(row for series in panels for row, _ in series))
    lines = [f"| | {' | '.join(f'{count} shots' for count in shots)} |", f"|{' --- |' * (len(shots) + 1)}"]
    for own in (row for row in rows if row.startswith(METHOD)):
        for other in (row for row in rows if not row.startswith(METHOD)):
            cells = [_difference(panels, own, other, count) for count in shots]
            lines.append(f"| {own} minus {other} | {' | '.join(cells)} |")
    return lines


def _difference(panels: Sequence[Series], own: str, other: str, count: int) -> str:
    pairs = [
        (scores, others[seed])
        for series in panels
        if (others := series.get((other, count)) or series.get((other, 0)))
        for seed, scores in series.get((own, count), {}).items()
        if seed in others
    ]
    if not pairs:
        return ""
    texts, higher = [], []
    for measure in MEASURES:
        values = [100 * (mine[measure] - theirs[measure]) for mine, theirs in pairs]
        mean, spread = _mean_and_spread(values)
        texts.append(f"{mean:+.1f} ± {spread / len(values) ** 0.5:.1f}")
        higher.append(str(sum(value > 0 for value in values)))
    return f"{' / '.join(texts)} (higher in {' / '.join(higher)} of {len(pairs)})"


def _mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def _cell(seeds: Mapping[int, Mapping[str, float]]) -> str:
    texts = []
    for measure in MEASURES:
        mean, spread = _mean_and_spread([scores[measure] for scores in seeds.values()])
        texts.append(f"{100 * mean:.1f}" + (f" ± {100 * spread:.1f}" if len(seeds) > 1 else ""))
    return " / ".join(texts)


def save_plot(path: Path, panels: Mapping[str, Series]) -> None:
    """Draw both measures over the shots, with a band of one standard deviation over the seeds.

    Each source and target has one row, with one panel per measure.
    """
    figure = Figure(figsize=(8, 2.7 * len(panels) + 1), layout="constrained")
    grid = figure.subplots(len(panels), len(MEASURES), squeeze=False, sharex=True)
    for axes, (title, series) in zip(grid, panels.items(), strict=True):
        for axis, measure in zip(axes, MEASURES, strict=True):
            _draw(axis, series, measure)
            axis.set_title(f"{title}: {_TITLES[measure]}", fontsize=11)
    for axis in grid[-1]:
        axis.set_xlabel("images per class")
    rows = {text: line for axis in grid.flat for line, text in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(rows.values(), rows.keys(), loc="outside upper center", ncols=3)
    save_figure(figure, path)


def _draw(axis: Axes, series: Series, measure: str) -> None:
    for row in dict.fromkeys(row for row, _ in series):
        points = sorted((count, seeds) for (name, count), seeds in series.items() if name == row)
        values = [_mean_and_spread([scores[measure] for scores in seeds.values()]) for _, seeds in points]
        counts = [count for count, _ in points]
        means = [100 * mean for mean, _ in values]
        if counts == [0]:
            axis.axhline(means[0], color="gray", linestyle="--", label=row)
            continue
        axis.plot(counts, means, marker="o", markersize=3, linewidth=2.5 if row.startswith(METHOD) else 1.5, label=row)
        low = [100 * (mean - spread) for mean, spread in values]
        high = [100 * (mean + spread) for mean, spread in values]
        axis.fill_between(counts, low, high, alpha=0.15)
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_ylabel("percent")
    axis.grid(alpha=0.3)
