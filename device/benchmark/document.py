"""From what the processes of a benchmark said to its one document; its form is `edgekit.report.schema`'s."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.boards import Board
from edgekit.device.benchmark.frame_cache import FrameCache
from edgekit.device.benchmark.rounds import Measured
from edgekit.device.engines.engine import open_engine
from edgekit.device.engines.versions import versions
from edgekit.device.pipeline.latency import summarize
from edgekit.files import sha256_of
from edgekit.report.power import PowerReading, mean_watts
from edgekit.report.schema import SCHEMA
from edgekit.report.statistics import histogram, median_interval

# Of milliseconds: a net may take a few microseconds, and a median must not leave its interval by rounding.
_DIGITS = 5


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
        InputError: It cannot be loaded or has no valid contract, or its engine is not installed.
    """
    contract = open_engine(path, 1).contract
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
    measured: Sequence[Measured],
    started_s: float,
    complete: bool,
    clip: FrameCache | None,
    settings: Mapping[str, Any],
    notes: Mapping[str, str],
    power: Sequence[PowerReading] = (),
) -> dict[str, Any]:
    """Return the report of one board.

    Args:
        board: Where it was measured.
        models: The models that took part.
        measured: At least one cell, each with at least one process.
        started_s: The start on the system's monotonic clock; the document counts from there.
        complete: Whether everything planned was measured.
        clip: The frames of the pipelines.
        settings: The user's.
        notes: What the user noted: fan, power supply, ambient temperature.
        power: Readings of a power meter.
    """
    cells = [_cell_document(cell, started_s, power) for cell in measured]
    processes = sorted((process for cell in cells for process in cell["processes"]), key=lambda one: one["started_s"])
    entry = {
        "label": None,
        "board": board.as_document(),
        "versions": versions(),
        "notes": dict(notes),
        "settings": dict(settings),
        "complete": complete,
        "before": processes[0]["before"],
        "after": processes[-1]["after"],
        "clip": None if clip is None else _clip_document(clip),
        "models": [asdict(model) | {"input_hw": list(model.input_hw)} for model in models],
        "cells": cells,
    }
    return {"schema": SCHEMA, "created_utc": datetime.now(UTC).isoformat(timespec="seconds"), "boards": [entry]}


def _clip_document(clip: FrameCache) -> dict[str, Any]:
    height, width = clip.frames[0].shape[:2]
    return {
        "source": clip.name,
        "frames": len(clip.frames),
        "complete": clip.complete,
        "first_frame_wh": [width, height],
        "memory_mib": round(clip.mib, 1),
        "pixels_sha256": clip.sha256,
    }


def _cell_document(measured: Measured, started_s: float, power: Sequence[PowerReading]) -> dict[str, Any]:
    cell, messages = measured.cell, measured.messages
    each_ms = [np.asarray(message["samples_ms"], np.float64) for message in messages]
    all_ms = np.concatenate(each_ms)
    interval = median_interval(each_ms)
    batch = messages[0]["batch"]
    images_per_s = batch * all_ms.size / (float(all_ms.sum()) / 1e3)
    processes = [message["process"] | {"started_s": round(message["started_s"] - started_s, 3)} for message in messages]
    faces = [message["faces_per_frame"] for message in messages if message["faces_per_frame"] is not None]
    distribution = asdict(histogram(all_ms))
    return {
        "kind": cell.kind,
        "model": cell.model,
        "engine": cell.engine,
        "intra_op_threads": cell.intra_op_threads,
        "batch": batch,
        "detector": messages[0]["detector"],
        "faces_per_frame": round(float(np.mean(faces)), 4) if faces else None,
        "latency": _rounded(asdict(summarize(all_ms))),
        "median_interval_ms": None if interval is None else [round(limit, _DIGITS) for limit in interval],
        "images_per_s": round(images_per_s, 3),
        "load_ms": round(float(np.median([process["load_ms"] for process in processes])), 3),
        "resident_mib": max(process["resident_mib"] for process in processes),
        "histogram": distribution | {"counts": list(distribution["counts"])},
        "stages": _stages(messages),
        "energy": _energy(processes, images_per_s, power),
        "age": _ages(messages),
        "marks": sorted({mark for process in processes for mark in process["marks"]}),
        "repeated": [_spoilt(message) for message in measured.spoilt],
        "processes": processes,
    }


def _stages(messages: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    names = list(messages[0]["stages_ms"])
    return {
        name: _rounded(asdict(summarize(lap for message in messages for lap in message["stages_ms"][name])))
        for name in names
    }


def _ages(messages: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
    ages_ms = [age for message in messages for age in message["ages_ms"]]
    return _rounded(asdict(summarize(ages_ms))) if ages_ms else None


def _spoilt(message: Mapping[str, Any]) -> dict[str, Any]:
    process = message["process"]
    return {"marks": process["marks"], "p50_ms": process["latency"]["p50_ms"], "after": process["after"]}


def _energy(
    processes: Sequence[Mapping[str, Any]], images_per_s: float, power: Sequence[PowerReading]
) -> dict[str, float] | None:
    spans = [(process["started_s"], process["started_s"] + process["elapsed_s"]) for process in processes]
    watts = [mean_watts(power, *span) for span in spans] if power else []
    known = [value for value in watts if value is not None]
    if not known or len(known) < len(spans):
        return None
    mean = float(np.mean(known))
    return {"mean_w": round(mean, 4), "joules_per_image": round(mean / images_per_s, 9)}


def _rounded(latency: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, _DIGITS) for name, value in latency.items()}
