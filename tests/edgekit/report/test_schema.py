"""What is read from boards is hostile: what the schema says holds, and nothing else gets through."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.errors import InputError
from edgekit.report.merging import merge
from edgekit.report.schema import MAX_BYTES, _Checker, check, load_schema, parse_document, read_document

Document = dict[str, Any]
MakeDocument = Callable[..., Document]


def text(document: Any) -> bytes:
    return json.dumps(document).encode()


def test_the_schema_is_a_json_schema_and_takes_the_document(make_document: MakeDocument) -> None:
    jsonschema.Draft202012Validator.check_schema(load_schema())
    document = make_document()
    jsonschema.validate(document, load_schema())
    assert parse_document(text(document), "it") == document


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner: list[tuple[Any, ...]] = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        inner += paths_of(item, (*path, key))
    return inner


JUNK = [None, True, -1, 0, 1.5, 10**13, "", "x" * 600, [], {}, [1, 2, 3], {"a": 1}, "0xff", "0x5\n"]


def test_our_check_and_a_library_agree_on_every_field_spoilt(make_document: MakeDocument) -> None:
    document = make_document()
    entry = document["boards"][0]
    entry["cells"] = entry["cells"][-1:]
    entry["cells"][0]["processes"] = entry["cells"][0]["processes"][:1]
    entry["cells"][0]["processes"][0]["during"] = entry["cells"][0]["processes"][0]["during"][:1]
    library = jsonschema.Draft202012Validator(load_schema())
    random = Random(7)  # noqa: S311
    for path in paths_of(document):
        *keys, last = path
        place = document
        for key in keys:
            place = place[key]
        kept = place[last]
        for junk in random.sample(JUNK, 4):
            place[last] = junk
            assert accepts(document) == library.is_valid(document), (path, junk)
        if isinstance(place, dict):
            del place[last]
            assert accepts(document) == library.is_valid(document), path
        place[last] = kept


def accepts(document: Document) -> bool:
    try:
        _Checker(load_schema(), "it").check(document, load_schema(), "")
    except InputError:
        return False
    return True


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no JSON"),
        (b"\xff\xfe", "is no JSON"),
        (b"[" * 100_000, "is no JSON"),
        (b'{"a":' * 50 + b"1" + b"}" * 50, "nested deeper"),
        (b'{"schema": NaN}', "is no JSON"),
        (b"9" * 5000, "is no JSON"),
        (b"1", "is 1, no object"),
        (b'{"schema": "edgekit.bench/1.0"}', "measure again"),
        (b'{"schema": "edgekit.bench/3.0", "created_utc": "", "boards": []}', "not of the form"),
        (b"x" * (MAX_BYTES + 1), "larger than 64 MiB"),
        (b"[" + b"[]," * 2_000_000 + b"[]]", "more than 4,000,000 values"),
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
    entry = parse_document(text(document), "it")["boards"][0]
    assert entry["board"]["model"] == "Pi[2J 3"
    assert entry["notes"] == {"fan": "none"}


def spoil(document: Document, key: str, value: Any) -> Document:
    document["boards"][0]["cells"][0][key] = value
    return document


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model", "other", "'other' is not among the board's models"),
        ("intra_op_threads", 4, "is there twice"),
        ("median_interval_ms", [3.0, 2.0], "wrong way round"),
        ("histogram", {"low_ms": 2, "high_ms": 2, "counts": [1], "above": 0}, "no width"),
        ("images_per_s", 0, "below 1e-06"),
        ("images_per_s", 1e-320, "below 1e-06"),
        ("median_interval_ms", [1e-320, 2.0], "below 1e-06"),
        (
            "latency",
            {**dict.fromkeys(("mean_ms", "p90_ms", "p99_ms", "max_ms"), 1), "p50_ms": 1e-320, "count": 9},
            "none",
        ),
        ("load_ms", 10**400, "no number"),
        ("marks", ["hot"], "not one of"),
    ],
)
def test_contradictions_are_refused(make_document: MakeDocument, key: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(spoil(make_document(), key, value), "it")


def test_a_file_that_is_none_is_an_error_of_the_user(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_document(tmp_path / "none.json")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_anything_is_read_or_refused(content: bytes) -> None:
    with pytest.raises(InputError):
        parse_document(content, "it")


def test_merging_keeps_every_board_and_labels_it(make_document: MakeDocument) -> None:
    one, two = make_document(), make_document("other.onnx", label="attic")
    merged = merge([one, two], ["kitchen", None])
    assert [entry["label"] for entry in merged["boards"]] == ["kitchen", "attic"]
    assert one["boards"][0]["label"] is None
    assert parse_document(text(merged), "it") == merged
    with pytest.raises(InputError, match="for one board"):
        merge([merged], ["both"])
    with pytest.raises(InputError, match="no report"):
        merge([])
