"""A report as terminal table, Markdown, CSV and HTML page; the page also in a real browser, if one is installed."""

from __future__ import annotations

import hashlib
import json
import re
import textwrap
from base64 import b64encode
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from typing import Any

import pytest

from edgekit.report import page as page_form
from edgekit.report.document import from_document, merge, parse_document
from edgekit.report.view import frame_rates, overviews, report_view
from edgekit.text import one_line, printable

Document = dict[str, Any]
MakeDocument = Callable[..., Document]
HOSTILE = "\x1b\u202e\n</style><script>alert(1)</script><img src=x onerror=alert(1)>\"'&|`*[x](javascript:1)=cmd"


def table(document: Document, width: int = 80) -> str:
    lines: list[str] = []
    for part in report_view(from_document(document, "it")):
        lines += (
            textwrap.wrap(printable(part), width)
            if isinstance(part, str)
            else [one_line(part.title), *part.lines(width)]
        )
    return "\n".join(lines)


def to_html(document: Document) -> str:
    return page_form.to_html(from_document(document, "it"))


def test_the_table_has_a_row_a_cell_in_a_readable_order(make_document: MakeDocument) -> None:
    text = table(make_document("b.onnx", "a.onnx"))
    rows = re.findall(r"^(net|frame)\s+(\d)\s", text, re.MULTILINE)
    assert rows == [("net", "1"), ("net", "4"), ("frame", "1"), ("frame", "4")] * 2
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert "1.0 %" in text


@pytest.mark.parametrize(
    ("virtualization", "word"), [("emulator", "EMULATED"), ("virtual machine", "VIRTUAL MACHINE"), ("none", None)]
)
def test_every_form_states_what_was_not_measured_on_a_board(
    make_document: MakeDocument, virtualization: str, word: str | None
) -> None:
    document = make_document()
    document["boards"][0]["board"]["virtualization"] = virtualization
    for text in (table(document), to_html(document)):
        assert ("EMULATED" in text, "VIRTUAL MACHINE" in text) == (word == "EMULATED", word == "VIRTUAL MACHINE")


def test_quality_flags_repeats_and_interruption_are_shown(make_document: MakeDocument) -> None:
    document = make_document()
    (entry,) = document["boards"]
    assert "THROTTLED" not in table(document)
    entry["cells"][0]["marks"] = ["busy", "throttled"]
    entry["cells"][0]["repeated"] = [{"marks": ["throttled"], "p50_ms": 2.0, "after": entry["after"]}]
    entry["complete"] = False
    text = " ".join(table(document).split())
    for part in ("THROTTLED (1 of 4 cells)", "BUSY (1 of 4", "1 measurements were discarded", "INTERRUPTED"):
        assert part in text
        assert part in to_html(document)


def test_the_charts_of_a_loop_weigh_stages_by_how_often_they_run(make_document: MakeDocument) -> None:
    document = make_document()
    cell = document["boards"][0]["cells"][2]
    plan = {"staged": True, "detector": 2, "classifier": 1, "opencv": 1}
    cell.update(kind="run", threads=plan, age=cell["latency"])
    cell["stages"] = {
        "detect": {**cell["latency"], "count": 30, "mean_ms": 80.0},
        "track": {**cell["latency"], "mean_ms": 4.0},
    }
    html = to_html(document)
    assert "detect: 8.00 ms, 67%" in html
    assert "result 90.00 ms after capture" in html
    assert "run: one thread per stage; threads: detector 2, classifier 1, OpenCV 1" in table(document, 200)


class Page(HTMLParser):
    """Collects the tags of a page and the attributes that load resources or run code."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.risky: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.risky += [(tag, key) for key, _ in attributes if key.startswith("on") or key in ("src", "href", "style")]


def with_text_everywhere(document: Document, text: str) -> Document:
    (entry,) = document["boards"]
    for model in entry["models"]:
        model.update(name=text, architecture=text[:100], precision=text[:60])
    for cell in entry["cells"]:
        cell.update(model=text, engine=text[:60])
        cell["stages"] = {text[:50]: stage for stage in list(cell["stages"].values())[:1]}
        cell["detector"] = cell["detector"] and text[:60]
    entry["board"].update(model=text, cpu=text, kernel=text, os_release=text, architecture=text[:40])
    entry.update(notes={text[:100]: text}, versions={text[:90]: text[:60]}, label=text[:100])
    entry["before"].update(governor=text[:60], throttling={"flags": "0x1", "now": [text], "since_boot": [text]})
    entry["clip"]["source"] = text
    document["created_utc"] = text[:40]
    return document


def test_no_text_of_a_document_becomes_code(make_document: MakeDocument) -> None:
    document = with_text_everywhere(make_document(), HOSTILE)
    assert parse_document(json.dumps(document).encode(), "it") == from_document(document, "it")
    html = to_html(document)
    page, plain = Page(), Page()
    page.feed(html)
    plain.feed(to_html(with_text_everywhere(make_document(), "plain")))
    assert page.risky == []
    assert set(page.tags) <= set(plain.tags) | {"circle"}
    assert page.tags.count("script") == 0
    for shown in (html, table(document)):
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", shown)


def test_the_page_fetches_nothing_and_forbids_it(make_document: MakeDocument) -> None:
    html = to_html(make_document())
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', html)
    policy = unescape(policy)
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    digest = b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}'"), "browsers use the style"
    assert "unsafe" not in policy
    assert not re.search(r"https?:|url\(|@import", html)


def test_boards_without_results_are_named_without_the_reason(make_document: MakeDocument) -> None:
    failed = {"label": "attic & co", "error": "no answer from 10.0.0.7", "overhead_s": None, "sent_bytes": 0}
    measured = {"label": "kitchen", "error": None, "overhead_s": 1.0, "sent_bytes": 0}
    documents = [{**make_document(), "hosts": hosts} for hosts in ([measured], [failed], [measured, failed])]
    report = merge([from_document(each, "it") for each in documents])
    forms = table(report.as_document()), page_form.to_html(report)
    for form in forms:
        assert re.search(r"NOT MEASURED \(1 of 2 boards\): attic & co\b(?!,)", unescape(form))
        assert "10.0.0.7" not in form
    assert "NOT MEASURED" not in table(documents[0])


def test_an_overview_compares_the_boards(make_document: MakeDocument) -> None:
    labels = ["kitchen", "room-with-a-long-label-of-forty-characters"]
    reports = [make_document("a.onnx", slower=slower) for slower in (1.0, 2.0)]
    spoilt = reports[1]["boards"][0]["cells"][0]
    spoilt["marks"] = ["throttled", "busy"]
    report = merge([from_document(each, "it") for each in reports], [[label] for label in labels])
    text = table(report.as_document())
    shown = text[text.index("All boards") :]
    assert "All boards" not in table(reports[0])
    assert re.search(r"board +net +frame +quality flags", shown)
    assert re.search(r"kitchen +20.00 +90.00 *\n", shown)
    assert re.search(r"40.00 +180 +throttled, busy", shown)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in shown
    html = page_form.to_html(report)
    assert "<td>kitchen</td><td>20.00</td><td>90.00</td><td></td>" in html
    assert "fps:" not in shown + html  # this column needs cells of the kind loop


def test_an_overview_compares_equal_files_whatever_their_names(make_document: MakeDocument) -> None:
    documents = [make_document(name) for name in ("one/a.onnx", "other/b.onnx", "other/a.onnx")]
    documents[2]["boards"][0]["models"][0]["sha256"] = "f" * 64
    one, renamed, different = (from_document(each, "it") for each in documents)
    (overview,) = overviews(merge([one, renamed], [["kitchen"], ["attic"]]))
    assert [row[0] for row in overview.rows] == ["kitchen", "attic"]
    assert overviews(merge([one, different], [["kitchen"], ["attic"]])) == []


def test_the_frame_rate_of_run_is_stated_first(make_document: MakeDocument) -> None:
    document = make_document("mine.onnx")
    assert frame_rates(from_document(document, "it")) == []  # no cell of the kind run
    for cell in document["boards"][0]["cells"][2:]:
        cell["kind"] = "run"
    document["boards"][0]["cells"][3]["median_interval_ms"] = [80.0, 100.0]
    document["boards"][0]["cells"][2]["latency"]["p50_ms"] = 120.0  # the fastest number of threads counts
    report = from_document(document, "it")
    (line,) = frame_rates(report, here=True)
    assert line == "edgekit run on this machine: about 11 frames/s (10 to 12)"
    (line,) = frame_rates(report)
    assert "Raspberry Pi 3" in line
    assert to_html(document).index(line) < to_html(document).index("<h1>")
    document["boards"][0]["board"]["virtualization"] = "emulator"
    assert frame_rates(from_document(document, "it")) == []
