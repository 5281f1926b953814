"""A report as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
import re
from html import escape
from typing import Any

from edgekit.report import view

_MARKDOWN = re.compile(r"([\\`*_{}\[\]#|!~])")
_CSV = (
    "board", "label", "virtualization", "model", "model_sha256", "precision", "kind", "engine", "intra_op_threads",
    "batch", "detector", "processes", "iterations", "p50_ms", "p50_low_ms", "p50_high_ms", "p90_ms", "p99_ms",
    "images_per_s", "load_ms", "resident_mib", "mean_w", "joules_per_image", "temperature_max_c", "clock_min_mhz",
    "clock_max_mhz", "marks",
)  # fmt: skip


def to_markdown(document: dict[str, Any]) -> str:
    """Return the report as Markdown, a table a board."""
    lines = ["# Benchmark", "", f"Measured {_escaped(document['created_utc'])}.", ""]
    for entry in document["boards"]:
        lines += [f"## {_escaped(view.board_title(entry))}", ""]
        lines += [f"**{_escaped(warning)}**\n"] if (warning := view.origin(entry)) else []
        columns = ("model", *view.COLUMNS)
        lines.append(f"| {' | '.join(columns)} |")
        lines.append("|" + " --- |" * 3 + " ---: |" * (len(columns) - 4) + " --- |")
        for model in entry["models"]:
            for cell in view.ordered([cell for cell in entry["cells"] if cell["model"] == model["name"]]):
                lines.append("| " + " | ".join(_escaped(text) for text in (model["name"], *view.row(cell))) + " |")
        lines += ["", *(f"- {_escaped(fact)}" for fact in view.facts(entry)), ""]
    return "\n".join(lines)


def to_csv(document: dict[str, Any]) -> str:
    """Return the report as CSV, a line a cell, units in the names of the columns."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_CSV)
    for entry in document["boards"]:
        models = {model["name"]: model for model in entry["models"]}
        for cell in entry["cells"]:
            writer.writerow([_harmless(value) for value in _csv_row(entry, models[cell["model"]], cell)])
    return stream.getvalue()


def _csv_row(entry: view.Entry, model: view.Entry, cell: view.CellDocument) -> list[Any]:
    low, high = cell["median_interval_ms"] or (None, None)
    readings = [reading for process in cell["processes"] for reading in process["during"]]
    temperatures = [reading["temperature_c"] for reading in readings if reading["temperature_c"] is not None]
    clocks = [reading["clock_mhz"] for reading in readings if reading["clock_mhz"] is not None]
    energy = cell["energy"] or {"mean_w": None, "joules_per_image": None}
    latency = cell["latency"]
    return [
        entry["board"]["model"], entry["label"], entry["board"]["virtualization"], model["name"], model["sha256"],
        model["precision"], cell["kind"], cell["engine"], cell["intra_op_threads"], cell["batch"], cell["detector"],
        len(cell["processes"]), latency["count"], latency["p50_ms"], low, high, latency["p90_ms"], latency["p99_ms"],
        cell["images_per_s"], cell["load_ms"], cell["resident_mib"], energy["mean_w"], energy["joules_per_image"],
        max(temperatures, default=None), min(clocks, default=None), max(clocks, default=None), "; ".join(cell["marks"]),
    ]  # fmt: skip


def _escaped(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", escape(text, quote=False))


def _harmless(value: Any) -> Any:
    # A spreadsheet takes text that begins so for a formula.
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value
