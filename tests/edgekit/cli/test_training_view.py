"""Progress of a training where no terminal draws a bar."""

from __future__ import annotations

import pytest

from edgekit.cli.output import Output
from edgekit.cli.progress import progress_bar
from edgekit.cli.train.training_options import TrainingView
from edgekit.models.training.loop import StepReport


def _lines(quiet: bool, times: list[float], capsys: pytest.CaptureFixture[str]) -> list[str]:
    out, clock = Output(as_json=True, quiet=quiet), iter(times)
    with progress_bar(out) as bars:
        view = TrainingView(out, bars, lambda: next(clock))
        for step, _ in enumerate(times, start=1):
            view.on_step(StepReport(0, 2, step, 100, 0.5, 0.75, 612.0))
    return capsys.readouterr().err.splitlines()


def test_one_line_per_minute_has_rate_and_remaining_time(capsys: pytest.CaptureFixture[str]) -> None:
    lines = _lines(False, [0, 30, 60, 61, 90, 121], capsys)
    assert lines == [
        "epoch 1/2, step 3/100: loss 0.500, accuracy 75.0%, 612 images/s, 98 min left",
        "epoch 1/2, step 6/100: loss 0.500, accuracy 75.0%, 612 images/s, 78 min left",
    ]


def test_quiet_prints_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert _lines(True, [0, 61, 122], capsys) == []
