"""The recommended format of `edgekit bench --formats`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgekit.export.formats import FormatFile, FormatsReport
from edgekit.models.evaluation.evaluate import Evaluation
from edgekit.report.document import from_document


def test_the_fastest_file_whose_accuracy_does_not_drop_is_recommended(
    make_document: Callable[..., dict[str, Any]],
) -> None:
    report = from_document(make_document("int8", "fp16", "float32"), "it")  # each slower than the one before
    evaluation = Evaluation(("a", "b"), np.zeros(1, np.int64), np.zeros((1, 2), np.float32))
    drops = {"float32": None, "fp16": None, "int8": "the accuracy drops by 3 points"}
    files = tuple(FormatFile(name, 1, evaluation, drop) for name, drop in drops.items())
    found = FormatsReport("default", "a53", "faces", "test", files, {}, report)
    (board,) = report.boards
    file, cell = found.recommended(board)
    assert file.name == "fp16"
    assert cell.latency.p50_ms == min(cell.latency.p50_ms for file, cell in found.rows(board) if file.name == "fp16")
