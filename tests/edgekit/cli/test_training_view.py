"""Progress lines of a training without a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.cli.output import Output
from edgekit.cli.progress import progress_bar
from edgekit.cli.train.training_view import TrainingView, training_view
from edgekit.models.training.loop import StepReport


def test_one_line_per_minute_has_rate_and_remaining_time(capsys: pytest.CaptureFixture[str]) -> None:
    out, clock = Output(as_json=True, quiet=False), iter([0, 30, 60, 61, 90, 121])
    with progress_bar(out) as bars:
        view = TrainingView(out, bars, lambda: next(clock))
        for step in range(1, 7):
            view.on_step(StepReport(0, 2, step, 100, 0.5, 0.75, 612.0))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "epoch 1/2, step 3/100: loss 0.500, accuracy 75.0%, 612 images/s, 98 min left",
        "epoch 1/2, step 6/100: loss 0.500, accuracy 75.0%, 612 images/s, 78 min left",
    ]


@pytest.mark.parametrize(("rank", "printed"), [("0", "reading\n"), ("1", "")])
def test_of_several_processes_the_first_one_prints(
    rank: str, printed: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RANK", rank)  # as torchrun sets it
    with training_view(Output(as_json=False, quiet=False), tmp_path) as view:
        view.callbacks["notify"]("reading")
    assert capsys.readouterr().out == printed
