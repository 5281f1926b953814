"""The comparison of prompts: its plan, its page of results, and its checks of stored settings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edgekit.errors import InputError


@pytest.fixture
def prompts(load: Callable[[str], ModuleType]) -> dict[str, Any]:
    return vars(load("prompts"))


def test_every_variant_has_every_seed_and_a_folder_of_its_own(prompts: dict[str, Any]) -> None:
    plan = list(prompts["planned"](list(prompts["TITLES"]), 3, 16, 6))
    counts = {group: sum(run.group == group for run in plan) for group in prompts["TITLES"]}
    assert counts == {"few-shot": 12, "all": 2, "base-to-novel": 12, "ablations": 24}
    assert len({run.folder(Path()) for run in plan}) == len(plan)


def test_the_page_shows_mean_and_spread_and_keeps_private_test_for_the_end(
    prompts: dict[str, Any], tmp_path: Path
) -> None:
    plan = list(prompts["planned"](["few-shot", "ablations"], 2, 16, 6))
    for run in plan:
        folder = run.folder(tmp_path)
        folder.mkdir(parents=True)
        accuracy = 0.5 + 0.1 * run.seed + (0.05 if run.variant == "HiCroPL" else 0)
        summary = {"accuracy": accuracy, "zero_shot_accuracy": 0.4}
        (folder / "results.json").write_text(json.dumps({"summary": summary}))
    facts = {"clip": "mini.safetensors", "clip_sha256": "0" * 64, "base_clip": None, "shots": 16}
    page = prompts["report"](prompts["collected"](plan, tmp_path), facts)
    assert "| zero-shot |  | 40.00% |" in page
    assert "| HiCroPL | 2 | 60.00% ± 7.07 |" in page
    assert "| independent prompts | 2 | 55.00% ± 7.07 |" in page
    assert page.count("| HiCroPL | 2 |") == 2  # the table of ablations repeats its row
    assert "PrivateTest" not in page
    (plan[0].folder(tmp_path) / "final.json").write_text(json.dumps({"summary": {"accuracy": 0.7}}))
    page = prompts["report"](prompts["collected"](plan, tmp_path), facts)
    assert "| PrivateTest | seeds | accuracy |" in page
    assert "| HiCroPL | 1 | 70.00% |" in page


def test_a_page_without_the_name_of_the_base_clip_is_written(prompts: dict[str, Any]) -> None:
    facts = {"clip": "mini.safetensors", "clip_sha256": "0" * 64, "base_clip": None, "shots": 16}
    entry = {"group": "base-to-novel", "variant": "HiCroPL", "splits": {"PublicTest": {"base": [0.5]}}}
    assert "The CLIP of this section was pretrained without images and captions" in prompts["report"]([entry], facts)
    assert "The CLIP `base.pt` was" in prompts["report"]([entry], {**facts, "base_clip": "base.pt"})


def test_without_the_base_clip_its_prompts_are_not_measured_on_another_clip(
    prompts: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = list(prompts["planned"](list(prompts["TITLES"]), 1, 16, 6))
    folder = next(run for run in plan if run.group == "base-to-novel").folder(tmp_path)
    folder.mkdir(parents=True)
    (folder / "results.json").write_text("{}")
    prompts["measure_all_finally"](plan, tmp_path / "clip", None, tmp_path / "data", tmp_path)
    assert capsys.readouterr().err == "base to novel is not measured on PrivateTest: it needs --base-clip\n"
    assert not (folder / "final.json").exists()


def test_settings_are_compared_with_those_of_kept_results(prompts: dict[str, Any], tmp_path: Path) -> None:
    with_kept, path = prompts["with_kept_settings"], tmp_path / "settings.json"
    path.write_text(json.dumps({"shots": 16, "epochs": None}))
    assert with_kept(path, {"shots": 4}) == {"shots": 4}  # no training has finished with 16
    _add_results(tmp_path, "few-shot")
    assert with_kept(path, {"shots": 16, "base_clip_sha256": "ab"}) == {
        "shots": 16,
        "epochs": None,
        "base_clip_sha256": "ab",
    }
    with pytest.raises(InputError, match="have shots 16, not 4"):
        with_kept(path, {"shots": 4})
    assert with_kept(path, {"data_sha256": "ab"})["data_sha256"] == "ab"  # the results do not record it
    path.write_text(json.dumps({"data_sha256": "cd"}))
    with pytest.raises(InputError, match="have data_sha256 cd, not ab"):
        with_kept(path, {"data_sha256": "ab"})


def test_results_that_do_not_record_a_setting_are_not_taken_over(prompts: dict[str, Any], tmp_path: Path) -> None:
    with_kept, path = prompts["with_kept_settings"], tmp_path / "settings.json"
    _add_results(tmp_path, "few-shot")
    with pytest.raises(InputError, match="do not record their shots"):
        with_kept(path, {"shots": 16})
    path.write_text(json.dumps({"shots": 16}))
    with pytest.raises(InputError, match="do not record their min_area"):
        with_kept(path, {"shots": 16, "min_area": None})
    _add_results(tmp_path, "base-to-novel")
    with pytest.raises(InputError, match="do not record their base_clip_sha256"):
        with_kept(path, {"shots": 16, "base_clip_sha256": "ab"})


def _add_results(runs: Path, group: str) -> None:
    (runs / group / "hicropl-0").mkdir(parents=True)
    (runs / group / "hicropl-0" / "results.json").write_text("{}")


def test_a_training_is_estimated_by_its_images_and_epochs(prompts: dict[str, Any]) -> None:
    pace = prompts["Pace"](start_s=10, step_s=2, evaluated_image_s=0.1, batch=32)
    counts = {"Training": 320, "PublicTest": 50, "PrivateTest": 70}
    plan = {run.group: run for run in prompts["planned"](["few-shot", "all", "base-to-novel"], 1, 16, 6)}
    # 10 + 3 x (4 steps of 2 s, 28 images of 0.1 s) + 50 images of 0.1 s, and so on.
    seconds = {group: prompts["seconds_of"](run, pace, counts, 3) for group, run in plan.items()}
    assert seconds == pytest.approx({"few-shot": 47.4, "all": 90, "base-to-novel": 31.8})
    assert prompts["seconds_of"](plan["all"], pace, counts, None) == pytest.approx(10 + 5 * 25 + 5)
    text = prompts["estimate_text"](list(plan.values()), list(seconds.values()), pace)
    assert "3 trainings remain: about 0.0 hours" in text
    assert "all: 1 x about 90 s" in text
