"""The distillation tables: finished trainings are not repeated, and pages state which requirements are met."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

Load = Callable[[str], ModuleType]


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
