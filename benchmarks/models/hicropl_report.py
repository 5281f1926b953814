"""Markdown tables of the results that `hicropl_tables.py` measured, with the paper's figures and the differences."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekit.files import write_atomic

FIGURES = Path(__file__).with_name("hicropl_figures.json")
AVERAGE, HARMONIC = "average", "harmonic mean"
# Data sets of the complete table, for which alone the paper's average is comparable.
_COMPLETE = {"base-to-novel": 11, "few-shot": 11, "cross-dataset": 10, "domain": 4}

# Percent by column and seed.
Values = dict[str, dict[int, float]]


def write_table(table: str, results: Sequence[Mapping[str, Any]], output: Path) -> str:
    """Write `TABLE.md` and return its text."""
    figures = json.loads(FIGURES.read_text())[table]
    rows = collected(results)
    page = [f"# {table}", "", "Accuracy in percent, mean ± standard deviation over the seeds.", ""]
    columns = list(dict.fromkeys(column for values in rows.values() for column in values[0]))
    for column in columns:
        page += [*([f"## {column}", ""] if len(columns) > 1 else []), *_lines(column, rows, figures, table), ""]
    source = figures["source"] or "not filled in: no source of its figures is at hand"
    page += [f"Paper: {source}.", f"Images per class, seeds and epochs: {_settings(results)}."]
    text = "\n".join(page) + "\n"
    write_atomic(output / f"{table}.md", text)
    return text


def collected(results: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Values, Values]]:
    """Return by data set the percent of the prompts and of CLIP; columns are base and novel, shots, or `accuracy`."""
    rows: dict[str, tuple[Values, Values]] = {}
    for result in results:
        run = result["run"]
        names = [run["dataset"], *run["targets"]]
        for index, score in enumerate(result["scores"]):
            if run["table"] == "base-to-novel":
                name, column = run["dataset"], score["name"]
            else:
                name = names[index]
                column = f"{run['shots']} shots" if run["table"] == "few-shot" else "accuracy"
            prompts, clip = rows.setdefault(name, ({}, {}))
            for values, key in ((prompts, "accuracy"), (clip, "template_accuracy")):
                values.setdefault(column, {})[run["seed"]] = 100 * score[key]
    for prompts, clip in rows.values():
        for values in (prompts, clip):
            if {"base", "novel"} <= values.keys():
                # As in the paper: of the means over the seeds.
                values[HARMONIC] = {0: statistics.harmonic_mean([_mean(values["base"]), _mean(values["novel"])])}
    return rows


def _lines(column: str, rows: Mapping[str, tuple[Values, Values]], figures: Mapping[str, Any], table: str) -> list[str]:
    """Return one table: data sets as rows, the average of all but the source of a transfer as the last one."""
    measured = {name: pair for name, pair in rows.items() if column in pair[0]}
    averaged = [name for name in measured if not (table in ("cross-dataset", "domain") and name == "ImageNet")]
    lines = ["| | seeds | CLIP | HiCroPL | paper: CLIP | paper: HiCroPL | difference |", f"|{' --- |' * 7}"]
    for name, (prompts, clip) in measured.items():
        of_seeds = list(prompts[column].values())
        spread = f" ± {statistics.stdev(of_seeds):.2f}" if len(of_seeds) > 1 else ""
        seeds = max(len(values) for values in prompts.values())
        lines.append(_line(name, seeds, _mean(clip[column]), _mean(prompts[column]), spread, column, figures))
    own, plain = (_average(column, [measured[name][side] for name in averaged]) for side in (0, 1))
    label = AVERAGE if len(averaged) == _COMPLETE[table] else f"{AVERAGE} of {len(averaged)}"
    return [*lines, _line(label, "", plain, own, "", column, figures)]


def _average(column: str, values: Sequence[Values]) -> float:
    if column == HARMONIC:  # as in the paper: of the average base and novel accuracies
        return statistics.harmonic_mean([_average(name, values) for name in ("base", "novel")])
    return statistics.mean(_mean(each[column]) for each in values)


def _line(
    name: str, seeds: object, clip: float, own: float, spread: str, column: str, figures: Mapping[str, Any]
) -> str:
    published = [figures[row].get(name, {}).get(column) for row in ("CLIP", "HiCroPL")]
    theirs = ["" if value is None else f"{value:.2f}" for value in published]
    difference = "" if published[1] is None else f"{own - published[1]:+.2f}"
    cells: Iterable[object] = (name, seeds, f"{clip:.2f}", f"{own:.2f}{spread}", *theirs, difference)
    return f"| {' | '.join(map(str, cells))} |"


def _mean(values: Mapping[int, float]) -> float:
    return statistics.mean(values.values())


def _settings(results: Sequence[Mapping[str, Any]]) -> str:
    shots = sorted({result["run"]["shots"] for result in results})
    seeds = sorted({result["run"]["seed"] for result in results})
    epochs = sorted({len(result["epochs"]) for result in results})
    return "; ".join(", ".join(map(str, each)) for each in (shots, seeds, epochs))
