"""A report as one HTML page that needs nothing else: drawings inline, no script, nothing fetched.

Everything from the document is escaped, and the page's content security policy lets through its own style sheet only,
so that even a hole in the escaping would run nothing.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from pathlib import Path, PurePath
from typing import Any

from edgekit.report import charts, view

_STYLE = Path(__file__).with_name("page.css")
_OPEN_CELLS = 6


def to_html(document: dict[str, Any]) -> str:
    """Return the page."""
    style = _STYLE.read_text()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    boards = document["boards"]
    title = view.board_title(boards[0]) if len(boards) == 1 else f"{len(boards)} boards"
    body = "".join(_board(entry) for entry in boards)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer"><meta name="color-scheme" content="light dark">'
        f"<title>Benchmark: {escape(title)}</title><style>{style}</style></head><body>"
        f'<header><p class="kicker">edgekit benchmark</p>{_contents(boards)}'
        f"<p>Measured {escape(document['created_utc'])}</p></header>{body}</body></html>\n"
    )


def _contents(boards: Sequence[view.Entry]) -> str:
    if len(boards) == 1:
        return ""
    items = "".join(f"<li>{escape(view.board_title(entry))}</li>" for entry in boards)
    return f"<ol>{items}</ol>"


def _board(entry: view.Entry) -> str:
    warning = view.origin(entry)
    others = [line for line in view.warnings(entry) if line != warning]
    facts = [line for line in view.facts(entry) if line not in view.warnings(entry)]
    return (
        f"<main><h1>{escape(view.board_title(entry))}</h1>"
        + (f'<p class="origin" role="alert">{escape(warning)}</p>' if warning else "")
        + "".join(f'<p class="warning">{escape(line)}</p>' for line in others)
        + _comparisons(entry)
        + f'<section><h2>Figures</h2><div class="scroll">{_table(entry)}</div></section>'
        + _over_time(entry)
        + _distributions(entry)
        + "<section><h2>How it was measured</h2><ul>"
        + "".join(f"<li>{escape(line)}</li>" for line in facts)
        + f"</ul>{_models(entry)}</section></main>"
    )


def _comparisons(entry: view.Entry) -> str:
    kinds = [kind for kind in view.KINDS if any(cell["kind"] == kind for cell in entry["cells"])]
    cards = "".join(
        f"<figure><figcaption>{kind}</figcaption>{charts.comparison(entry, kind)}</figure>" for kind in kinds
    )
    note = "Bars are medians, whiskers their 95 % intervals, in milliseconds: shorter is faster."
    return f'<section><h2>Latency</h2><p class="note">{note}</p><div class="cards">{cards}</div></section>'


def _table(entry: view.Entry) -> str:
    shown = view.shown_columns(entry["cells"])
    head = "".join(f"<th>{escape(view.COLUMNS[index])}</th>" for index in shown)
    rows = []
    for model in entry["models"]:
        cells = view.ordered([cell for cell in entry["cells"] if cell["model"] == model["name"]])
        if cells:
            css, name = charts.colour_of(entry, model["name"]), escape(PurePath(model["name"]).name)
            rows.append(f'<tr class="group"><th colspan="{len(shown)}"><i class="key {css}"></i>{name}</th></tr>')
        for cell in cells:
            texts = view.row(cell)
            rows.append("<tr>" + "".join(f"<td>{escape(texts[index])}</td>" for index in shown) + "</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _over_time(entry: view.Entry) -> str:
    drawings = {"Speed, temperature and clock over the time of the benchmark": charts.timeline(entry)}
    if any(cell["stages"] for cell in entry["cells"]):
        drawings["Stages of the pipeline, mean milliseconds"] = charts.stages(entry)
    cards = "".join(f"<figure><figcaption>{title}</figcaption>{drawn}</figure>" for title, drawn in drawings.items())
    return f'<section><h2>What it did meanwhile</h2><div class="cards wide">{cards}</div></section>'


def _distributions(entry: view.Entry) -> str:
    many = len(entry["cells"]) > _OPEN_CELLS
    groups = []
    for index, model in enumerate(entry["models"]):
        cells = view.ordered([cell for cell in entry["cells"] if cell["model"] == model["name"]])
        cards = "".join(_card(entry, cell) for cell in cells)
        opened = "" if many and index else " open"
        if cells:
            name = escape(PurePath(model["name"]).name)
            groups.append(f'<details{opened}><summary>{name}</summary><div class="cards">{cards}</div></details>')
    note = "How often each latency came, the median and its interval; below, images a second in each process."
    return f'<section><h2>Distributions</h2><p class="note">{note}</p>{"".join(groups)}</section>'


def _card(entry: view.Entry, cell: view.CellDocument) -> str:
    marks = "".join(f' <b class="mark">{escape(mark)}</b>' for mark in cell["marks"])
    energy = cell["energy"]
    power = f", {energy['joules_per_image'] * 1e3:.3g} mJ each at {energy['mean_w']:.3g} W" if energy else ""
    if age := cell.get("age"):
        power += f", result {view.ms(age['p50_ms'])} ms after the picture"
    return (
        f"<figure><figcaption>{escape(cell['kind'])}, {escape(charts.cell_name(cell, False))}{marks}</figcaption>"
        f'<p class="figure"><strong>{view.ms(cell["latency"]["p50_ms"])}</strong> ms ± {escape(view.plus_minus(cell))}'
        f" · {cell['images_per_s']:.1f} a second{power}</p>"
        f"{charts.distribution(entry, cell)}{charts.rates(entry, cell)}</figure>"
    )


def _models(entry: view.Entry) -> str:
    items = []
    for model in entry["models"]:
        height, width = model["input_hw"]
        items.append(
            f"<li>{escape(PurePath(model['name']).name)}: {escape(model['architecture'])}, "
            f"{escape(model['precision'])}, {width}x{height}, {model['labels']} labels, "
            f"{model['size_bytes']:,} bytes, <code>{escape(model['sha256'][:16])}…</code></li>"
        )
    return f"<h3>Models</h3><ul>{''.join(items)}</ul>"
