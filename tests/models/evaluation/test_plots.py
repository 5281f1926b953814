"""The plot of an evaluation: special characters, axis labels, long names and many classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekit.models.evaluation.evaluate import Evaluation
from edgekit.models.evaluation.plots import save_evaluation


@pytest.mark.parametrize(("label", "title"), [("$_$", "test"), ("happy", "$_$.onnx on test")])
def test_dollar_signs_are_not_mathematics(label: str, title: str, tmp_path: Path) -> None:
    evaluation = Evaluation((label, "sad"), np.array([0, 1]), np.eye(2, dtype=np.float32))
    save_evaluation(tmp_path / "plot.svg", evaluation, title)
    assert "<!-- $_$" in (tmp_path / "plot.svg").read_text()


def test_long_names_leave_room_for_the_axes(tmp_path: Path) -> None:
    label, title = "clearly surprised person with an open mouth and open eyes", "a-long-file-name-" * 7
    evaluation = Evaluation((label, "sad"), np.array([0, 1]), np.eye(2, dtype=np.float32))
    # Otherwise matplotlib warns that the sizes of the axes collapsed to zero, and warnings are errors.
    save_evaluation(tmp_path / "plot.svg", evaluation, title)
    assert "<!-- a-long-file-name-" in (tmp_path / "plot.svg").read_text()


def test_many_classes_are_drawn_without_texts(tmp_path: Path) -> None:
    labels = tuple(f"class {number}" for number in range(160))
    evaluation = Evaluation(labels, np.arange(160), np.eye(160, dtype=np.float32))
    save_evaluation(tmp_path / "plot.png", evaluation, "test")  # PIL raises an error for a larger image
    save_evaluation(tmp_path / "plot.svg", evaluation, "test")
    assert "<!-- class 7" not in (tmp_path / "plot.svg").read_text()


def test_characters_that_the_font_lacks_cause_no_warning(tmp_path: Path) -> None:
    evaluation = Evaluation(("幸せ", "sad"), np.array([0, 1]), np.eye(2, dtype=np.float32))
    save_evaluation(tmp_path / "plot.png", evaluation, "test")
    assert (tmp_path / "plot.png").stat().st_size > 0
