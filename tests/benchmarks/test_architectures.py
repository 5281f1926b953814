"""The report of the architecture study."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edgekit.models.nets.registry import create_model, parameter_count


@pytest.fixture
def study(load: Callable[[str], ModuleType]) -> ModuleType:
    return load("architectures")


@pytest.fixture
def report(load: Callable[[str], ModuleType]) -> ModuleType:
    return load("study_report")


def measured(name: str, percent: int | None) -> dict[str, Any]:
    accuracy = {protocol: {"correct": percent, "total": 100} for protocol in ("center-crop", "ten-crop")}
    return {
        "name": name,
        "structure_sha256": f"structure of {name}",
        "parameters": 1000,
        "macs": 2_000_000,
        "weight_bytes": 4000,
        "read_bytes": 2000,
        "written_bytes": 1000,
        "moved_bytes": 7000,
        "flops_per_byte": 571.4,
        "budget": {"recipe": "fer2013", "epochs": 10, "batch_size": 64, "seed": 0},
        "precision": "bf16" if percent else None,
        "accuracy": accuracy if percent else None,
    }


def store_counts(folder: Path, name: str, structure: str) -> None:
    median = {"instructions": 29_600_000, "simd_fp": 13_300_000, "l1d_misses": 1_354_000, "l2_misses": 49_000}
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps({"structure_sha256": structure, "median": median}))


def row(folder: Path, name: str) -> list[str]:
    lines = (folder / "study.md").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_every_net_of_the_study_exists(study: ModuleType) -> None:
    for name in study.NETS + study.UNTRAINED_NETS:
        assert parameter_count(create_model(name, 7)) > 0


def test_the_report_shows_each_nets_figures(report: ModuleType, tmp_path: Path) -> None:
    store_counts(tmp_path / "counts", "edgecnn", "structure of edgecnn")
    latency = {
        "rounds": 3,
        "structures": {"edgecnn": "structure of edgecnn"},
        "nets": {"edgecnn": {"ms": 1.2, "ratio": 1.0}},
    }
    report.write_report(
        [measured("edgecnn", 66), measured("edgecnn-g", None)], latency, tmp_path / "counts", tmp_path / "out"
    )
    assert row(tmp_path / "out", "edgecnn")[1:] == [
        *("66.00 % / 66.00 %", "1,000", "2.00", "0.01: 0.00 + 0.00 + 0.00", "571.4", "1.20 (1.00)"),
        *("29.6", "13.3", "1354", "49"),
    ]
    assert (
        row(tmp_path / "out", "edgecnn-g")[1:]
        == ["-", "1,000", "2.00", "0.01: 0.00 + 0.00 + 0.00", "571.4"] + ["-"] * 5
    )
    assert "These nets were trained: edgecnn in bf16.\n" in (tmp_path / "out/study.md").read_text()
    document = json.loads((tmp_path / "out/study.json").read_text())
    assert document["budget"]["epochs"] == 10
    assert document["latency_method"] == {"rounds": 3}
    assert (tmp_path / "out/study.png").read_bytes().startswith(b"\x89PNG")
