"""A benchmark document with invented numbers, which no machine measured."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

Document = dict[str, Any]
MakeDocument = Callable[..., Document]

CONDITIONS = {
    "temperature_c": 48.3,
    "clock_mhz": 1400.0,
    "clock_source": "firmware",
    "clock_min_mhz": 600.0,
    "clock_max_mhz": 1400.0,
    "governor": "ondemand",
    "throttling": {"flags": "0x0", "now": [], "since_boot": []},
    "memory_available_mib": 600,
    "load_1min": 0.1,
}
SHA = "0123456789abcdef" * 4


def summary(p50_ms: float, count: int = 300) -> dict[str, float]:
    times = {"mean_ms": p50_ms, "p50_ms": p50_ms, "p90_ms": p50_ms * 1.1, "p99_ms": p50_ms * 1.3, "max_ms": p50_ms * 2}
    return {"count": count, **times}


def process(p50_ms: float, started_s: float) -> Document:
    readings = [
        {"at_s": at_s, "images_per_s": 1e3 / p50_ms, "temperature_c": 50.0 + at_s, "clock_mhz": 1400.0,
         "throttle_flags": "0x0"}
        for at_s in (1.0, 2.0, 3.0)
    ]  # fmt: skip
    return {
        "started_s": started_s,
        "elapsed_s": 3.4,
        "busy_s": 3.3,
        "load_ms": 80.0,
        "warm_up": {"iterations": 20, "seconds": 0.5, "stable": True},
        "latency": summary(p50_ms, 100),
        "images_per_s": 1e3 / p50_ms,
        "resident_mib": 90.0,
        "others_processors": 0.02,
        "before": copy.deepcopy(CONDITIONS),
        "during": readings,
        "after": copy.deepcopy(CONDITIONS),
        "marks": [],
    }


def cell(model: str, kind: str, threads: int, p50_ms: float, started_s: float) -> Document:
    per_frame = kind == "frame"
    return {
        "kind": kind,
        "model": model,
        "engine": "onnxruntime",
        "intra_op_threads": threads,
        "batch": 1,
        "detector": "haar" if per_frame else None,
        "faces_per_frame": 1.0 if per_frame else None,
        "latency": summary(p50_ms),
        "median_interval_ms": [p50_ms * 0.99, p50_ms / 0.99],
        "images_per_s": 1e3 / p50_ms,
        "load_ms": 80.0,
        "resident_mib": 90.0,
        "histogram": {"low_ms": p50_ms * 0.9, "high_ms": p50_ms * 1.3, "counts": [5, 100, 190, 2], "above": 3},
        "stages": {name: summary(p50_ms * share) for name, share in (("detect", 0.7), ("crop", 0.1), ("classify", 0.2))}
        if per_frame
        else {},
        "marks": [],
        "repeated": [],
        "processes": [process(p50_ms, started_s + index * 20) for index in range(3)],
    }


@pytest.fixture
def make_document() -> MakeDocument:
    """Return a function that makes a document of one board: per model, two kinds of cells with one and four threads."""

    def make(*models: str, slower: float = 1.0, label: str | None = None) -> Document:
        names = models or ("edgecnn.onnx",)
        cells = [
            cell(name, kind, threads, base_ms * slower * (1 + index), 100.0 * index)
            for index, name in enumerate(names)
            for kind, base_ms in (("net", 20.0), ("frame", 90.0))
            for threads in (1, 4)
        ]
        entry = {
            "label": label,
            "board": {
                "model": "Raspberry Pi 3 Model B Plus Rev 1.3",
                "cpu": "Cortex-A53",
                "cpu_part": "0xd03",
                "processors": 4,
                "architecture": "aarch64",
                "userland_bits": 64,
                "memory_total_mib": 906,
                "os_release": "Debian GNU/Linux 13 (trixie)",
                "kernel": "6.12.47+rpt-rpi-v8",
                "python": "3.13.5",
                "virtualization": "none",
            },
            "versions": {"edgekit": "0.1.0", "onnxruntime": "1.32.0"},
            "notes": {"fan": "none"},
            "settings": {
                "seconds": 10,
                "min_iterations": 100,
                "processes": 3,
                "batch": 1,
                "seed": 0,
                "cool_down_s": 20,
                "allow_throttled": False,
                "intra_op_threads": [1, 4],
                "detector_size_px": 320,
            },
            "complete": True,
            "before": copy.deepcopy(CONDITIONS),
            "after": copy.deepcopy(CONDITIONS),
            "clip": {
                "source": "demo",
                "frames": 150,
                "complete": True,
                "first_frame_wh": [640, 480],
                "memory_mib": 131.8,
                "pixels_sha256": SHA,
            },
            "models": [
                {"name": name, "sha256": f"{index:064x}", "size_bytes": 1_300_000, "architecture": "edgecnn",
                 "precision": "float32", "input_hw": [44, 44], "labels": 7}
                for index, name in enumerate(names)
            ],
            "cells": cells,
        }  # fmt: skip
        return {"schema": "edgekit.bench/2.2", "created_utc": "2026-01-01T00:00:00+00:00", "boards": [entry]}

    return make
