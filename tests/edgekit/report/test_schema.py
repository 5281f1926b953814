"""Benchmark documents can come from hostile boards: only documents that match the schema are read."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest

from edgekit.errors import InputError
from edgekit.report.compare import compare
from edgekit.report.document import from_document, merge, parse_document
from edgekit.report.page import to_html
from tools.reference_pages import json_schema

Document = dict[str, Any]
MakeDocument = Callable[..., Document]


def text(document: Any) -> bytes:
    return json.dumps(document).encode()


def test_the_schema_is_a_json_schema_and_accepts_the_document(make_document: MakeDocument) -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    document = make_document()
    jsonschema.validate(document, json_schema())
    written = json.loads(text(parse_document(text(document), "it").as_document()))
    jsonschema.validate(written, json_schema())
    assert parts_of(written, document) == document


def parts_of(value: Any, like: Any) -> Any:
    """Return a JSON value with only the keys that `like` has."""
    if isinstance(like, dict):
        return {key: parts_of(value[key], inner) for key, inner in like.items()}
    if isinstance(like, list):
        return [parts_of(item, inner) for item, inner in zip(value, like, strict=True)]
    return value


@pytest.mark.parametrize(
    ("minor", "names"),
    [(0, {"net": "inference", "frame": "pipeline"}), (1, {"net": "inference", "frame": "per-frame"})],
)
def test_documents_of_edgekit_0_2_are_read_with_the_present_names(
    make_document: MakeDocument, minor: int, names: dict[str, str]
) -> None:
    document = make_document()
    document["schema"] = f"edgekit.bench/2.{minor}"
    cells = document["boards"][0]["cells"]
    for cell in cells:
        cell["kind"] = names[cell["kind"]]
    assert parse_document(text(document), "it") == parse_document(text(make_document()), "it")
    cells[0]["kind"], cells[1]["kind"], cells[2]["kind"] = "classifier", "camera", "loop"
    report = parse_document(text(document), "it")
    assert report.schema == "edgekit.bench/2.2"
    assert [cell.kind for cell in report.boards[0].cells[:3]] == ["classifier", "camera", "run"]
    assert {cell.kind for cell in compare(report, report).cells} == {"classifier", "camera", "run", "frame"}
    assert all(kind in to_html(report) for kind in ("classifier", "camera", "run"))


def test_unknown_fields_of_a_later_minor_version_are_ignored(make_document: MakeDocument) -> None:
    later = make_document()
    later["schema"] = "edgekit.bench/2.9"
    later["boards"][0]["cells"][0]["novelty"] = {"deep": [1]}
    assert parse_document(text(later), "it") == parse_document(text(make_document()), "it")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"1", "field 'document' is wrong: expected `object`"),
        (b'{"schema": "edgekit.bench/1.0"}', "measure again"),
        (
            b'{"schema": "edgekit.bench/3.0", "created_utc": "", "boards": []}',
            "reads edgekit.bench/2.x: update edgekit",
        ),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_is_no_document_is_refused_in_one_line(content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        parse_document(content, "it")
    assert len(str(refused.value)) < 300


def test_strings_lose_what_moves_a_cursor_or_turns_text_around(make_document: MakeDocument) -> None:
    document = make_document()
    document["boards"][0]["board"]["model"] = "Pi\x1b[2J\u202e\u200b\r\n 3\ud800\u2028"
    document["boards"][0]["notes"] = {"f\x07an": "no\x00ne"}
    (board,) = parse_document(text(document), "it").boards
    assert board.board.model == "Pi[2J 3"
    assert board.notes == {"fan": "none"}


def spoil(document: Document, key: str, value: Any) -> Document:
    document["boards"][0]["cells"][0][key] = value
    return document


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model", "other", "'other' is not among the board's models"),
        ("intra_op_threads", 4, "is a duplicate"),
        ("median_interval_ms", [3.0, 2.0], "lower limit is above its upper limit"),
        ("histogram", {"low_ms": 2, "high_ms": 2, "counts": [1], "above": 0}, "no width"),
        ("images_per_s", 0, "images_per_s' is wrong: expected `float` >= 1e-06"),
        (
            "latency",
            {**dict.fromkeys(("mean_ms", "p90_ms", "p99_ms", "max_ms"), 1), "p50_ms": 1e-320, "count": 9},
            "the median 1e-320 ms is below",
        ),
        ("marks", ["hot"], r"marks\[0\]' is wrong: invalid enum value 'hot'"),
    ],
)
def test_contradictions_are_refused(make_document: MakeDocument, key: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_document(spoil(make_document(), key, value), "it")


def test_merging_keeps_every_board_and_labels_it(make_document: MakeDocument) -> None:
    one, two = (from_document(made, "it") for made in (make_document(), make_document("other.onnx", label="attic")))
    merged = merge([one, two], [["kitchen"], ["attic"]])
    assert [board.label for board in merged.boards] == ["kitchen", "attic"]
    assert one.boards[0].label is None
    assert parse_document(text(merged.as_document()), "it") == merged
    assert [board.label for board in merge([merged, one]).boards] == ["kitchen", "attic", None]
    with pytest.raises(InputError, match="no report"):
        merge([])
