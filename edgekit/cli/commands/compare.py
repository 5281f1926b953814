"""`edgekit compare`: which differences between two benchmark reports are real."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.options import NumberRange
from edgekit.cli.output import Output, common_options

if TYPE_CHECKING:
    from edgekit.report.compare import BoardChange


@click.command("compare", short_help="Tell which differences between two benchmarks are real.")
@click.argument("before", type=click.Path(path_type=Path), metavar="A.json")
@click.argument("after", type=click.Path(path_type=Path), metavar="B.json")
@click.option(
    "--gate",
    type=NumberRange(0, 1000),
    metavar="PERCENT",
    help="Exit with 3 if a cell got slower, for real, by more.",
)
@click.option("--allow-different", is_flag=True, help="Compare although board, clock, frames or model differ.")
@common_options
def command(out: Output, before: Path, after: Path, gate: float | None, allow_different: bool) -> None:
    """Compare two reports of `edgekit bench`, cell by cell, from A.json to B.json.

    A difference is real where the 95 % interval of the ratio of the medians excludes 1. Reports of other boards,
    clocks, frames or models are refused (exit code 2) unless allowed. A gate also refuses what it cannot judge: cells
    that throttled, had fewer than three processes, or are in one report only.

    \b
    Examples:
      edgekit compare yesterday.json today.json
      edgekit compare reference.json new.json --gate 5
      edgekit compare float.json int8.json --allow-different --json
    """
    from dataclasses import asdict

    from edgekit.errors import GateError, InputError
    from edgekit.report.compare import compare, regressions, unjudged
    from edgekit.report.schema import read_document

    changes = compare(read_document(before), read_document(after), allow_different)
    worse = [] if gate is None else regressions(changes, gate)
    open_questions = unjudged(changes)
    for change in changes:
        _show(out, change)
    out.result(
        {
            "before": str(before),
            "after": str(after),
            "gate_percent": gate,
            "boards": [asdict(change) for change in changes],
            "regressions": [asdict(cell) for cell in worse],
            "unjudged": open_questions,
        }
    )
    if worse:
        names = [f"{Path(cell.model).name}, {cell.kind}, {cell.intra_op_threads} threads" for cell in worse]
        raise GateError(f"slower by more than {gate:g} %: {'; '.join(names)}")
    if gate is not None and open_questions and not allow_different:
        raise InputError(f"the gate cannot judge: {'; '.join(open_questions)}: measure again, or --allow-different")


def _show(out: Output, change: BoardChange) -> None:
    from pathlib import PurePath

    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from edgekit.report.view import KINDS, ms

    out.say(change.board)
    for model in dict.fromkeys(cell.model for cell in change.cells):
        title = Text(PurePath(model).name)
        table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for column in ("what", "threads", "A ms", "B ms", "change", "95 % interval", "verdict"):
            left = column in ("what", "verdict")
            table.add_column(column, justify="left" if left else "right", no_wrap=column != "verdict")
        for cell in sorted(change.cells, key=lambda cell: (KINDS.index(cell.kind), cell.intra_op_threads)):
            if cell.model != model:
                continue
            limits = cell.ratio_interval
            between = "-" if limits is None else f"{_percent(limits[0])} to {_percent(limits[1])}"
            verdict = cell.verdict + (f": {cell.why}" if cell.why else "")
            style = {"slower": "red", "faster": "green"}.get(cell.verdict, "")
            times = (ms(cell.before_ms), ms(cell.after_ms), _percent(cell.ratio), between)
            table.add_row(cell.kind, str(cell.intra_op_threads), *times, Text(verdict, style=style))
        out.console.print(table)
    for what, lines in (
        ("differs", change.differences),
        ("version", change.notes),
        ("left out", change.unmatched),
        ("doubtful", change.doubts),
    ):
        for line in lines:
            out.say(f"{what}: {line}")


def _percent(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f} %"
