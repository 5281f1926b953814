"""Tables of docs/reference/results.md: one per model, rendered from the documents that publishing writes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgekit.errors import InputError
from edgekit.export.publish.measure import FIELD_CLASSES, SPLIT
from edgekit.files import write_atomic
from edgekit.model_store import SHIPPED

BEGIN = "<!-- Between these marks, `python -m edgekit.export.publish --docs docs` writes. -->"
END = "<!-- End of what publish writes. -->"
_GAP = "| not measured | | |"


def update_results(page: Path, models: Path) -> None:
    """Write the tables of all documents in the folder `models` between the marks of a page.

    Raises:
        InputError: The page is missing or lacks the marks.
    """
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise InputError(f"page '{page}' lacks the marks of the models' tables: add '{BEGIN}' and '{END}'")
    write_atomic(page, f"{before}{BEGIN}\n\n{results_tables(models)}\n{END}{after}")


def results_tables(models: Path) -> str:
    """Return the tables of the shipped models whose documents are in the folder `models`."""
    paths = [models / f"{name}.json" for name in SHIPPED]
    return "\n".join(_table(json.loads(path.read_text(encoding="utf-8"))) for path in paths if path.is_file())


def _table(document: Mapping[str, Any]) -> str:
    name, picture = document["name"], ""
    if document["photographs"]:
        picture = f"Confusion matrix and calibration on photographs: [picture](../models/{name}-photographs.png).\n"
    lines = "\n".join(_rows(document))
    return f"""### `{name}`

[Card](../../edgekit/assets/{name}.md). {picture}
| data, measure | right | mean recall | calibration error | `edgekit eval {name} …` |
| --- | ---: | ---: | ---: | --- |
{lines}
"""


def _rows(document: Mapping[str, Any]) -> Iterator[str]:
    of_data = f"FER-2013 {SPLIT}"
    command = "`--data fer2013.tar.gz`"
    if document["fer2013"] is None:
        yield f"| {of_data} {_GAP} {command} |"
    for protocol, result in (document["fer2013"] or {}).items():
        options = " `--protocol ten-crop`" if protocol.startswith("ten") else ""
        options += " `--without-duplicates`" if protocol.endswith("duplicates") else ""
        yield f"| {of_data}, {protocol} | {_right(result)} | {_shares(result)} | {command}{options} |"
    command = f"{command} `--ferplus ferplus_votes.csv`"
    if document["ferplus"] is None:
        yield f"| FER+ {SPLIT} {_GAP} {command} |"
    for protocol, result in (document["ferplus"] or {}).items():
        options = "" if protocol == "center-crop" else f" `--protocol {protocol}`"
        of_data = f"FER+ {SPLIT}, {protocol}"
        yield f"| {of_data}, majority among the seven | {_right(result)} | {_shares(result)} | {command}{options} |"
        yield f"| {of_data}, usual eight classes | {_right(result['eight_classes'])} | | | as in the row above |"
    classes = ",".join(FIELD_CLASSES)
    command, result = f"`--photos photos.tar --recall-of {classes}`", document["photographs"]
    if result is None:
        yield f"| photographs {_GAP} {command} |"
    else:
        recall, error = result["mean_recall_of"], result["with_face"]["calibration_error"]
        yield f"| photographs, mean recall of five | {_right(result)} | {recall:.2%} | {error:.3f} | {command} |"
    yield f"| CK+ {_GAP} `--data CK+48 --split all` |"


def _right(result: Mapping[str, Any]) -> str:
    return f"{result['accuracy']:.2%} ({result['correct']} of {result['total']})"


def _shares(result: Mapping[str, Any]) -> str:
    return f"{result['mean_recall']:.2%} | {result['calibration_error']:.3f}"
