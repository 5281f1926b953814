"""The times of a CLIP's towers with and without prompts, and of a training step."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import ModuleType

from click.testing import CliRunner

Load = Callable[[str], ModuleType]


def test_towers_are_compared_pair_by_pair(load: Load) -> None:
    arguments = ["towers", "--clip", "clip-mini", "--batch", "2", "--pairs", "3", "--clock", "cpu", "--json"]
    done = CliRunner().invoke(load("clip_towers").main, arguments)
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert len(document["prompted_ratios"]) == 3
    assert min(document[f"{name}_s"] for name in ("plain", "prompted", "unprompted", "ensemble")) > 0
    assert document["allowed"] == 1.15
    assert "the ensemble's two towers" in done.stderr
    ratio = document["prompted_ratio"] / document["unprompted_ratio"]
    assert f"so prompts cost {ratio:.2f} times" in done.stderr


def test_a_step_prints_the_estimated_time_of_a_training_as_an_estimate(load: Load) -> None:
    towers = load("clip_towers")
    done = CliRunner().invoke(towers.main, ["step", "--clip", "clip-mini", "--batch", "2", "--steps", "1", "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["peak_mib"] > 50
    assert 5 < document["prompts_mib"] < 7
    cost = towers.StepCost(batch=4, step_s=8, evaluated_image_s=1, peak_mib=1, prompts_mib=1)
    # 7 x 16 x 50 images at 2 s, and 3600 at 1 s.
    assert towers.estimate(cost, 7, 16, 50, 3600).endswith("tested on 3600 images: 4.1 hours")
    assert towers.estimate(cost, 7, 1, 2, 12).endswith("tested on 12 images: 0.7 minutes")
    assert document["estimate"].startswith("estimate: 7 classes x 16 images x 50 epochs")
