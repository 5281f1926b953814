"""Progress lines of a training without a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.cli.output import Output, by_stage, progress_bar
from edgekit.cli.training_view import TrainingView, training_view
from edgekit.models.training.loop import StepReport


@pytest.mark.parametrize("quiet", [False, True])
def test_without_a_terminal_a_stage_prints_one_line_per_minute(quiet: bool, capsys: pytest.CaptureFixture[str]) -> None:
    times = iter([0.0, 59, 61, 62, 125])
    with progress_bar(Output(as_json=False, quiet=quiet)) as bars:
        show = by_stage(bars, lambda: next(times))
        for done in (1, 2, 3):
            show("running the teacher", done, 9)
        show("reading images", 1, None)
        show("running the teacher", 4, 9)
    lines = ["running the teacher: 33%", "running the teacher: 44%"]
    assert capsys.readouterr().err.splitlines() == ([] if quiet else lines)


def test_without_a_terminal_a_training_prints_its_step_once_a_minute(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekit.cli.output.LINE_EVERY_S", 0.0)
    with progress_bar(Output(as_json=True, quiet=False)) as bars:
        TrainingView(Output(as_json=True, quiet=False), bars).on_step(StepReport(0, 2, 3, 100, 0.5, 0.75, 612.0))
    assert capsys.readouterr().err.splitlines() == ["epoch 1/2: 3%"]


@pytest.mark.parametrize(("rank", "printed"), [("0", "reading\n"), ("1", "")])
def test_of_several_processes_the_first_one_prints(
    rank: str, printed: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RANK", rank)  # as torchrun sets it
    with training_view(Output(as_json=False, quiet=False), tmp_path) as view:
        view.callbacks["notify"]("reading")
    assert capsys.readouterr().out == printed
