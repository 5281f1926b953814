"""Published latencies of nets on Raspberry Pi models, with sources, in `published_latencies.csv` (module).

Each is the average of a benchmark with batch 1 on the CPU. Cooling, memory and engine versions differ between the rows.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import msgspec


@dataclass(frozen=True)
class PublishedLatency:
    """One row of the table. `input_px` is the side or WxH as published, `precision` fp32 or int8, `source` a URL.

    `precision` is that of the net's file: ncnn's fp32 was computed in half floats by processors that have them (the
    Pi 5's).
    """

    board: str
    cpu: str
    clock_mhz: int
    engine: str
    model: str
    input_px: str
    precision: str
    threads: int | None
    avg_ms: float
    source: str


def published_latencies() -> list[PublishedLatency]:
    """Return the rows of `published_latencies.csv`."""
    with Path(__file__).with_name("published_latencies.csv").open(newline="") as stream:
        rows = [{name: text or None for name, text in row.items()} for row in csv.DictReader(stream)]
    return msgspec.convert(rows, list[PublishedLatency], strict=False)
