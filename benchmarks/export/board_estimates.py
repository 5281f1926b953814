"""Fit of compute and bandwidth of boards to published latencies, with leave-one-out errors.

    python benchmarks/export/board_estimates.py --count    counts the published nets (minutes; needs [export])
    python benchmarks/export/board_estimates.py            fits; writes export/profiling/board_rooflines.json

Prints the table that docs/explanation/estimates.md sums up. `board_nets.py` creates the nets; their counts are kept in
board_estimates/nets.json, so that a fit needs no torch. Counting YuNet requires its file: --yunet
face_detection_yunet_2026may.onnx. Only latencies of ncnn are fitted, because they cover enough nets with one engine and
one method. Latencies of OpenCV are not fitted but predicted, as a test of the fit.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
from published_latencies import PublishedLatency, published_latencies
from roofline_fit import Fit, Point, fit, predicted_ms

from edgekit.export.profiling.roofline import ROOFLINES_NAME, SPREAD, Precision, Roofline
from edgekit.files import write_atomic
from edgekit.known_boards import KNOWN_BOARDS

_HERE = Path(__file__).resolve().parent
_COUNTS = _HERE / "board_estimates" / "nets.json"
_ROOFLINES = _HERE.parents[1] / "export" / "profiling" / ROOFLINES_NAME
_FITTED_ENGINE, _TEST_ENGINE = "ncnn", "opencv-dnn 4.10"
_THREADS = (1, 4)
_PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")


@click.command()
@click.option("--count", is_flag=True, help="Count the nets again.")
@click.option("--yunet", type=click.Path(path_type=Path, exists=True), help="YuNet's file; counted at 160x128.")
def main(count: bool, yunet: Path | None) -> None:
    if count:
        _count(yunet)
    nets = json.loads(_COUNTS.read_text())
    rows = published_latencies()
    found, fits = [], {}
    for board in KNOWN_BOARDS.values():
        for precision in _PRECISIONS:
            for threads in _THREADS:
                chosen = [row for row in rows if _is_fitted(row, board.name, precision, threads) and row.model in nets]
                result = fit([_point(nets[row.model], row) for row in chosen])
                fits[board.name, precision, threads] = result
                found.append(_roofline(board.name, precision, threads, chosen, result))
                _print_fit(found[-1], chosen, result)
    click.echo(as_markdown(found))
    tests = [test for row in rows if (test := _test(row, nets, found)) is not None]
    for test in tests:
        click.echo(f"test: {test}")
    document = {
        "made_by": "benchmarks/export/board_estimates.py",
        "spread": SPREAD,
        "engine": _FITTED_ENGINE,
        "rooflines": [asdict(roofline) for roofline in found],
        "tests": tests,
    }
    write_atomic(_ROOFLINES, json.dumps(document, indent=1) + "\n")


def _is_fitted(row: PublishedLatency, board: str, precision: str, threads: int) -> bool:
    return (row.board, row.precision, row.threads, row.engine) == (board, precision, threads, _FITTED_ENGINE)


def _point(net: dict[str, list[int]], row: PublishedLatency) -> Point:
    bytes_per_value = 4 if row.precision == "fp32" else 1
    moved = np.array(net["moved_bytes"], np.float64) * bytes_per_value / 4
    return Point(row.avg_ms, np.array(net["macs"], np.float64), moved)


def _roofline(board: str, precision: Precision, threads: int, rows: list[PublishedLatency], result: Fit) -> Roofline:
    return Roofline(
        board=board,
        precision=precision,
        threads=threads,
        clock_mhz=rows[0].clock_mhz if rows else None,
        macs_per_s=round(result.macs_per_s, -6),
        bytes_per_s=round(result.bytes_per_s, -6),
        rows=len(rows),
        coverage=round(result.coverage, 3),
        typical_error=round(result.typical_error, 3),
        reason=result.reason,
    )


def _test(row: PublishedLatency, nets: dict[str, Any], found: list[Roofline]) -> dict[str, Any] | None:
    """Return measured and predicted latency for a published latency of OpenCV; None for all others.

    The prediction is scaled to the clock frequency of the measurement.
    """
    if row.engine != _TEST_ENGINE or row.model not in nets or row.precision != "fp32":
        return None
    for roofline in found:
        key = (roofline.board, roofline.precision, roofline.threads)
        if key == (row.board, row.precision, row.threads) and roofline.clock_mhz:
            at_its_clock = predicted_ms(_point(nets[row.model], row), roofline.macs_per_s, roofline.bytes_per_s)
            expected_ms = at_its_clock * roofline.clock_mhz / row.clock_mhz
            return {
                "board": row.board,
                "engine": row.engine,
                "model": row.model,
                "measured_ms": row.avg_ms,
                "predicted_ms": round(expected_ms, 2),
                "factor": round(row.avg_ms / expected_ms, 3),
            }
    return None


def as_markdown(found: Sequence[Roofline]) -> str:
    """Return a table with one row per fit."""
    lines = [
        "| board | precision, threads | GMAC/s | GB/s | nets | coverage | median error |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for roofline in found:
        lines.append(
            f"| {roofline.board} | {roofline.precision}, {roofline.threads} | {roofline.macs_per_s / 1e9:.2f} | "
            f"{roofline.bytes_per_s / 1e9:.2f} | {roofline.rows} | {roofline.coverage:.0%}"
            f"{', no estimate' if roofline.reason else ''} | {roofline.typical_error:.2f} |"
        )
    return "\n".join(lines)


def _print_fit(roofline: Roofline, rows: list[PublishedLatency], result: Fit) -> None:
    click.echo(
        f"{roofline.board}, {roofline.precision}, {roofline.threads} threads: {roofline.macs_per_s / 1e9:.2f} GMAC/s, "
        f"{roofline.bytes_per_s / 1e9:.2f} GB/s from {roofline.rows} nets, coverage {roofline.coverage:.0%}, "
        f"median error {roofline.typical_error:.2f}x{': ' + roofline.reason if roofline.reason else ''}"
    )
    click.echo("   " + ", ".join(f"{r.model} {e:.2f}" for r, e in zip(rows, result.errors, strict=False)))


def _count(yunet: Path | None) -> None:
    from board_nets import NETS, graph_of, yunet_at

    from edgekit.export.profiling.cost import graph_cost

    sizes = {row.model: row.input_px for row in published_latencies()}
    graphs = {name: (lambda name=name: graph_of(name, int(sizes[name]))) for name in NETS}
    if yunet:
        # YuNet needs multiples of 32; the published size is 160x120.
        graphs["yunet"] = lambda: yunet_at(yunet, 160, 128)
    counts = json.loads(_COUNTS.read_text()) if _COUNTS.exists() else {}
    for name, make in graphs.items():
        cost = graph_cost(make())
        counts[name] = {
            "macs": [layer.macs for layer in cost.layers],
            "moved_bytes": [layer.moved_bytes for layer in cost.layers],
        }
        write_atomic(_COUNTS, json.dumps(counts, sort_keys=True) + "\n")
        click.echo(f"{name}: {cost.macs:,} MACs, {cost.moved_bytes:,} bytes moved, {cost.parameters:,} parameters")


if __name__ == "__main__":
    main()
