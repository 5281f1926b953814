"""`edgekit compare`: which differences between benchmark results are real."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.command import command as edgekit_command
from edgekit.cli.option_types import PATH
from edgekit.cli.output import Output, TextTable
from edgekit.options import Options, option

if TYPE_CHECKING:
    from edgekit.report.compare import BoardChange, CellChange

_COLUMNS = ("kind", "threads", "A ms", "B ms", "change of time", "95 % interval", "verdict")


@dataclass(frozen=True, kw_only=True)
class CompareOptions(Options):
    """What is compared, and which differences are an error."""

    baseline: str | None = option(
        "--baseline",
        "With one report: the model that the others are compared with. Default: the first one.",
        metavar="MODEL",
    )
    gate: float | None = option(
        "--gate",
        "Exit with code 3 if a cell is slower by more than PERCENT and the difference is real.",
        metavar="PERCENT",
        least=0,
        most=1000,
    )
    allow_different: bool = option(
        "--allow-different",
        "Also compare reports with different boards, clock frequencies, frames, detectors or models. --gate then "
        "ignores cells that cannot be judged.",
        default=False,
    )


@edgekit_command(
    "compare", short_help="Compare two benchmark reports, or the models of one report.", options=CompareOptions
)
@click.argument("before", type=PATH, metavar="A.json")
@click.argument("after", required=False, type=PATH, metavar="[B.json]")
def command(out: Output, before: Path, after: Path | None, options: CompareOptions) -> None:
    """Compare two reports of `edgekit bench` cell by cell, or the models within one report.

    A difference is real if the 95 % interval of the ratio of the medians does not contain 1. Two reports with different
    boards, clock frequencies, frames, detectors or models are refused (exit code 2). --allow-different compares such
    reports.
    --gate refuses (exit code 2) cells that cannot be judged: cells that throttled, had a changing clock or fewer than
    three processes, or are in one report only.

    \b
    Examples:
      edgekit compare yesterday.json today.json
      edgekit compare reference.json new.json --gate 5
      edgekit compare float.json int8.json --allow-different --json
      edgekit compare report.json --baseline float.onnx
    """
    from edgekit.errors import GateError, InputError
    from edgekit.report.compare import compare

    comparison = compare(before, after, baseline=options.baseline, allow_different=options.allow_different)
    gate = options.gate
    regressions = []
    for board in comparison.boards:
        _show(out, board)
        if gate is not None:
            regressions += [(board, cell) for cell in board.cells if cell.is_regression(gate)]
    unjudged = comparison.unjudged()
    out.result(
        {
            "before": str(before),
            "after": None if after is None else str(after),
            "gate_percent": gate,
            "boards": [asdict(board) for board in comparison.boards],
            "regressions": [{"board": board.board, **asdict(cell)} for board, cell in regressions],
            "unjudged": unjudged,
        }
    )
    if regressions:
        names = [comparison.on_board(board, cell.name) for board, cell in regressions]
        raise GateError(f"slower by more than {gate:g} %: {'; '.join(names)}")
    # With --allow-different, cells that cannot be judged are ignored, but not if these are all cells.
    are_ignored = options.allow_different and comparison.judged()
    if gate is not None and unjudged and not are_ignored:
        again = "measure the same models, kinds and threads again, with --processes 3 or more"
        raise InputError(f"the gate cannot judge {'; '.join(unjudged)}: {again}")


def _show(out: Output, board: BoardChange) -> None:
    """Print the comparison of a board: a table per pair of models, then the remarks."""
    if board.differences:
        out.say(f"DIFFERENT CONDITIONS, which also change the times: {'; '.join(board.differences)}", bold=True)
    out.say(board.board)  # its title
    for pair in dict.fromkeys((cell.baseline, cell.model) for cell in board.cells):
        out.show(_table([cell for cell in board.cells if (cell.baseline, cell.model) == pair]))
    # `cures`: how to measure again, so that the cells "not judged" can be judged.
    remarks = {"note": board.notes, "unmatched": board.unmatched, "not judged": board.cures, "doubtful": board.doubts}
    out.show("")
    for kind, lines in remarks.items():
        out.show(*(f"{kind}: {line}" for line in lines))


def _table(cells: list[CellChange]) -> TextTable:
    """Return a table that compares one model (B) with its baseline (A), with one row per cell."""
    from edgekit.report.view import ms

    rows = []
    for cell in cells:
        limits = cell.ratio_interval
        between = "-" if limits is None else f"{_percent(limits[0])} to {_percent(limits[1])}"
        verdict = cell.verdict + (f": {cell.why}" if cell.why else "")
        times = (ms(cell.before_ms), ms(cell.after_ms), _percent(cell.ratio), between)
        rows.append((cell.kind, str(cell.intra_op_threads), *times, verdict))
    baseline, model = cells[0].baseline, cells[0].model
    title = baseline if baseline == model else f"A: {baseline}, B: {model}"
    return TextTable(_COLUMNS, rows, ("kind", "verdict"), title)


def _percent(ratio: float) -> str:
    """Return the change for a ratio of times, such as "+5.0 %" for 1.05."""
    return f"{100 * (ratio - 1):+.1f} %"
