"""A report as one self-contained HTML page: charts inline, no scripts, nothing is fetched.

The template engine escapes every text. The page's content security policy allows only its own style sheet, so that a
fault in the escaping could not run code either.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from edgekit.report import charts, view
from edgekit.report.document import KINDS, BenchmarkReport, BoardResult, Kind

_FOLDER = Path(__file__).parent
# With more cells than this, only the first model's distributions are unfolded.
_OPEN_CELLS = 6


def to_html(report: BenchmarkReport) -> str:
    """Return the report as an HTML page."""
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    style = (_FOLDER / "page.css").read_text()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    report = view.with_short_names(report)
    boards = report.boards
    return environment.get_template("page.html.jinja").render(
        report=report,
        title=view.board_title(boards[0]) if len(boards) == 1 else f"{len(boards)} boards",
        style=Markup(style),
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        view=view,
        charts=charts,
        kinds_of=_kinds_of,
        open_cells=_OPEN_CELLS,
    )


def _kinds_of(board: BoardResult) -> list[Kind]:
    measured = {cell.kind for cell in board.cells}
    return [kind for kind in KINDS if kind in measured]
