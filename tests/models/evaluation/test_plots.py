"""The plot of an evaluation: special characters and long names."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgekit.models.evaluation.evaluate import Evaluation
from edgekit.models.evaluation.plots import save_evaluation


def test_dollar_signs_are_not_mathematics(tmp_path: Path) -> None:
    evaluation = Evaluation(("$_$", "sad"), np.array([0, 1]), np.eye(2, dtype=np.float32))
    save_evaluation(tmp_path / "plot.svg", evaluation, "test")
    assert "<!-- $_$" in (tmp_path / "plot.svg").read_text()


def test_long_names_leave_room_for_the_axes(tmp_path: Path) -> None:
    label, title = "clearly surprised person with an open mouth and open eyes", "a-long-file-name-" * 7
    evaluation = Evaluation((label, "sad"), np.array([0, 1]), np.eye(2, dtype=np.float32))
    # Otherwise matplotlib warns that the sizes of the axes collapsed to zero, and warnings are errors.
    save_evaluation(tmp_path / "plot.svg", evaluation, title)
    assert "<!-- a-long-file-name-" in (tmp_path / "plot.svg").read_text()
