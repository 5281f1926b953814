"""The distillation tables: finished trainings are not repeated, and pages state which requirements are met."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

from edgekit.models.checkpoints.checkpoint import load_checkpoint
from edgekit.models.clip.architecture import ClipConfig, Tower
from edgekit.models.clip.load import save_clip, seeded_model

Load = Callable[[str], ModuleType]


@pytest.fixture
def faces(draw_faces: Callable[..., Path], tmp_path: Path) -> Path:
    return draw_faces(tmp_path / "faces", {"Training": 14, "PublicTest": 7, "PrivateTest": 14})


@pytest.mark.slow
@pytest.mark.by_hand
def test_students_are_set_beside_nets_of_labels_alone_and_their_teacher(
    load: Load, faces: Path, tmp_path: Path
) -> None:
    study = load("distillation_study")
    config = ClipConfig(32, 16, Tower(64, 2, 1), Tower(64, 2, 1), 24, context_length=40)
    for seed in (1, 2):
        save_clip(tmp_path / f"clip{seed}.safetensors", seeded_model(config, seed), config)
    common = ["--data", faces, "--student", "mini-xception", "--seeds", 1, "--epochs", 1, "--threads", 1]
    places = ["--runs", tmp_path / "runs", "-o", tmp_path / "docs"]
    teachers = ["--teacher", tmp_path / "clip1.safetensors", "--again", tmp_path / "clip2.safetensors"]

    def output(*arguments: object) -> str:
        done = CliRunner().invoke(study.main, list(map(str, arguments)))
        assert done.exit_code == 0, done.output
        return done.stdout

    page = output("students", *common, *places, *teachers, "--", "--temperature", 4)
    assert "| mini-xception, distilled |" in page
    facts = json.loads((tmp_path / "docs/students.json").read_text())
    assert 0 <= facts["retest"] <= 1
    student = load_checkpoint(tmp_path / "runs/mini-xception-distilled-0/best.safetensors")
    assert student.training["distillation"]["temperature"] == 4
    hot = ("students", *common, *places, *teachers, "--", "--temperature", 4)
    assert page == output(*hot)  # from the stored results
    other = CliRunner().invoke(study.main, [*map(str, hot[:-1]), "2"])
    assert other.exit_code == 1
    assert "is of another command" in other.output

    path = tmp_path / "runs/mini-xception-distilled-0/best.safetensors"
    page = output("merged", path, *common, *places, "--clip", tmp_path / "clip1.safetensors")
    facts = json.loads((tmp_path / "docs/merged.json").read_text())
    assert facts["accuracy"].keys() == {
        "sum of old probabilities",
        "mean of old vectors",
        "mean of old vectors and an offset",
        "vectors of new texts",
        "trained for the merged classes",
    }
    assert page.count("| 1 |") == 5
    trained = load_checkpoint(tmp_path / "runs/mini-xception-merged-0/best.safetensors")
    assert trained.contract.labels == ("positive", "negative", "neutral")


def test_pages_state_whether_the_required_value_was_reached(load: Load) -> None:
    study = load("distillation_study")
    facts = {
        "student": "edgecnn",
        "teacher": "wide",
        "split": "PrivateTest",
        "budget": "3 epochs in bf16",
        "teacher_accuracy": 0.7,
        "again_accuracy": 0.71,
        "retest": 0.8,
        "distilled": {"accuracy": [0.6, 0.62], "agreement": [0.72, 0.76], "member_agreement": {"a": [0.5, 0.5]}},
        "plain": {"accuracy": [0.6, 0.6], "agreement": [0.6, 0.6]},
    }
    page = study.students_page(facts)
    assert "92.5% of the agreement of nets like the teacher (required: 90%, met)" in page
    assert "| edgecnn, distilled | 61.00% ± 1.41 | 74.00% ± 2.83 |" in page
    assert "- agreement with a: 50.00% ± 0.00" in page
    facts["distilled"]["agreement"] = [0.7, 0.7]  # type: ignore[index]
    assert "missed" in study.students_page(facts)
    found = {
        "sum of old probabilities": [0.75],
        "mean of old vectors": [0.7],
        "trained for the merged classes": [0.765, 0.775],
    }
    page = study.merged_page(
        {"merges": ["a=b,c"], "split": "PrivateTest", "budget": "3 epochs in bf16", "accuracy": found}
    )
    assert "| sum of old probabilities | 1 | 75.00% | 2.00, met |" in page
    assert "| mean of old vectors | 1 | 70.00% | 7.00, missed |" in page
    assert "| trained for the merged classes | 2 | 77.00% ± 0.71 |  |" in page
