"""What a benchmark says: one JSON document for machines, tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from edgekit.boards import Board, Conditions
from edgekit.device.benchmark import KINDS, MIN_ITERATIONS, Clip, Measurement, peak_resident_mib
from edgekit.device.engines import versions
from edgekit.device.session import open_session, read_contract
from edgekit.files import sha256_of

# MAJOR.MINOR: fields are added with a new minor; a new major changes or drops some.
SCHEMA = "edgekit.bench/1.0"

_BUSY_SHARE = 0.3


@dataclass(frozen=True)
class Model:
    """A model that takes part, by the name the user gave."""

    name: str
    sha256: str
    size_bytes: int
    architecture: str
    precision: str
    input_hw: tuple[int, int]
    labels: int


def describe_model(name: str, path: Path) -> Model:
    """Return what the report says about a model file.

    Raises:
        InputError: It cannot be loaded or has no valid contract.
    """
    contract = read_contract(open_session(path, 1), path)
    return Model(
        name=name,
        sha256=sha256_of(path),
        size_bytes=path.stat().st_size,
        architecture=contract.architecture,
        precision=contract.precision,
        input_hw=contract.input.size_hw,
        labels=len(contract.labels),
    )


def report_document(
    *,
    board: Board,
    models: Sequence[Model],
    measurements: Sequence[Measurement],
    clip: Clip | None,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the report; `measurements` stay in the order they were taken, `settings` are the user's."""
    return {
        "schema": SCHEMA,
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "board": board.as_document(),
        "before": measurements[0].before.as_document(),
        "after": measurements[-1].after.as_document(),
        "settings": {"min_iterations": MIN_ITERATIONS, **settings},
        "clip": None if clip is None else _clip_document(clip),
        "models": [asdict(model) for model in models],
        "cells": [_cell_document(measurement) for measurement in measurements],
        "peak_resident_mib": round(peak_resident_mib(), 1),
    }


def report_view(board: Board, measurements: Sequence[Measurement]) -> Group:
    """Return the report for people: a table a model, the board above them, its state and what is amiss below."""
    models = sorted({done.cell.model for done in measurements})
    tables = [_table(name, [done for done in measurements if done.cell.model == name]) for name in models]
    return Group(_board_line(board), *tables, *_notes(board, measurements))


def _table(model: str, measurements: Sequence[Measurement]) -> Table:
    table = Table(title=escape(Path(model).name), title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.add_column("what", no_wrap=True)
    for column in ("threads", "p50 ms", "p90 ms", "p99 ms", "a second", "load ms", "MiB"):
        table.add_column(column, justify="right", no_wrap=True)
    for done in sorted(measurements, key=lambda done: (KINDS.index(done.cell.kind), done.cell.intra_op_threads)):
        latency = done.latency
        table.add_row(
            done.cell.kind,
            str(done.cell.intra_op_threads),
            *(f"{value:.2f}" for value in (latency.p50_ms, latency.p90_ms, latency.p99_ms)),
            f"{done.images_per_s:.1f}",
            f"{done.load_ms:.0f}",
            f"{done.resident_mib:.0f}",
        )
    return table


def _clip_document(clip: Clip) -> dict[str, Any]:
    height, width = clip.frames[0].shape[:2]
    return {
        "source": clip.name,
        "frames": len(clip.frames),
        "complete": clip.complete,
        "first_frame_wh": [width, height],
        "memory_mib": round(clip.mib, 1),
        "pixels_sha256": clip.sha256,
    }


def _cell_document(done: Measurement) -> dict[str, Any]:
    document: dict[str, Any] = {
        "kind": done.cell.kind,
        "model": done.cell.model,
        "intra_op_threads": done.cell.intra_op_threads,
        "batch": done.batch,
        "load_ms": round(done.load_ms, 3),
        "warm_up_iterations": done.warm_up_iterations,
        "busy_s": round(done.busy_s, 3),
        "latency": _rounded(done.latency),
        "images_per_s": round(done.images_per_s, 3),
        "resident_mib": round(done.resident_mib, 1),
        "before": done.before.as_document(),
        "after": done.after.as_document(),
    }
    if done.cell.kind == "pipeline":
        document["detector"] = done.detector
        document["faces_per_frame"] = done.faces_per_frame
        document["stages"] = {stage: _rounded(summary) for stage, summary in done.stages.items()}
    return document


def _rounded(latency: Any) -> dict[str, float]:
    return {name: round(value, 4) for name, value in asdict(latency).items()}


def _board_line(board: Board) -> str:
    parts = [board.model or "unknown board"]
    if board.cpu and board.cpu != board.model:
        parts.append(board.cpu)
    parts.append(f"{board.processors or '?'} processors, {board.architecture}")
    return escape(", ".join(parts))


def _notes(board: Board, measurements: Sequence[Measurement]) -> list[str]:
    first = measurements[0].before
    notes = [
        "inference: the net alone; classifier: and cut the faces; pipeline: and find them",
        f"before: {_state(first)}",
        f"after:  {_state(measurements[-1].after)}",
    ]
    if first.load_1min is not None and board.processors and first.load_1min > _BUSY_SHARE * board.processors:
        notes.append(f"BUSY: other programs were running (load {first.load_1min:.1f}): stop them and measure again")
    if board.virtualization == "emulator":
        notes.append("EMULATED: these times are not a board's times")
    if any(done.after.throttling and done.after.throttling.now for done in measurements):
        notes.append("THROTTLED while measuring: cool the board or mend its power supply, and measure again")
    return notes


def _state(now: Conditions) -> str:
    temperature = "temperature unknown" if now.temperature_c is None else f"{now.temperature_c:.1f} °C"
    clock = "clock unknown" if now.clock_mhz is None else f"{now.clock_mhz:.0f} MHz"
    throttling = "throttling unknown" if now.throttling is None else now.throttling.explain()
    return ", ".join([temperature, clock, f"governor {now.governor or 'unknown'}", throttling])
