"""HiCroPL's tables on synthetic data sets in CoOp's folders: rows, averages and differences."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

from edgekit.models.clip.architecture import ClipConfig, Tower
from edgekit.models.clip.load import save_clip
from tests.clips import random_clip
from tests.coop_trees import SPLIT_FILES, make_all

SCRIPT = Path(__file__).parents[2] / "benchmarks/models/hicropl_tables.py"
SMALL = ClipConfig(32, 16, Tower(64, 2, 1), Tower(64, 2, 1), 32)
TABLES = ("base-to-novel", "few-shot", "cross-dataset", "domain")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_all(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def gpt_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the form of the authors' description files, each with sentences for one or two classes."""
    folder = tmp_path_factory.mktemp("gpt_file")
    for name in (split[1] for split in SPLIT_FILES):
        (folder / f"{name}.json").write_text(json.dumps({f"{name}_0": [f"The first of {name}."]}))
    for name in ("imagenet", "imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r", "fgvc"):
        (folder / f"{name}_prompt.json").write_text(json.dumps({"tench": ["A fish."], "sunglasses": ["Dark glasses."]}))
    return folder


@pytest.fixture(scope="module")
def clip_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.safetensors"
    save_clip(path, random_clip(SMALL).model, SMALL)
    return path


@pytest.fixture
def tables(load: Callable[[str], ModuleType]) -> ModuleType:
    return load("hicropl_tables")


def _arguments(table: str, clip: Path, data: Path, output: Path, *more: object) -> list[str]:
    common = (table, "--clip", clip, "--data", data, "--epochs", 1, "--threads", 1, "-o", output, *more)
    return [str(each) for each in common]


def _measured(tables: ModuleType, *arguments: Any) -> str:
    done = CliRunner().invoke(tables.main, _arguments(*arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    text: str = done.stdout
    return text


def _rows(text: str) -> dict[str, list[str]]:
    lines = [[cell.strip() for cell in line[1:-1].split("|")] for line in text.splitlines() if line.startswith("|")]
    return {cells[0]: cells[1:] for cells in lines}


def test_base_to_novel_measures_both_halves_of_the_classes(
    tables: ModuleType, clip_path: Path, data: Path, gpt_file: Path, tmp_path: Path
) -> None:
    more = ("--descriptions", gpt_file, "--seeds", 1, "--shots", 2, "--only", "FGVCAircraft", "--only", "ImageNet")
    text = _measured(tables, "base-to-novel", clip_path, data, tmp_path, *more)
    assert (tmp_path / "base-to-novel.md").read_text() in text
    assert [line for line in text.splitlines() if line.startswith("##")] == ["## base", "## novel", "## harmonic mean"]
    document = json.loads((tmp_path / "base-to-novel/ImageNet-2-shots-seed-1.json").read_text())
    assert [(score["name"], score["images"]) for score in document["scores"]] == [("base", 4), ("novel", 4)]
    rows = _rows(text.split("## novel")[1].split("##")[0])
    assert list(rows)[2:] == ["ImageNet", "FGVCAircraft", "average of 2"]
    assert rows["ImageNet"][1] == f"{100 * document['scores'][1]['template_accuracy']:.2f}"
    assert rows["ImageNet"][2] == f"{100 * document['scores'][1]['accuracy']:.2f}"


def test_the_average_of_all_data_sets_is_compared_with_the_papers(tables: ModuleType, tmp_path: Path) -> None:
    results = []
    for number, run in enumerate(tables.planned("base-to-novel", 2)):
        scores = [
            {"name": name, "accuracy": accuracy, "template_accuracy": 0.5}
            for name, accuracy in (("base", 0.4 + 0.02 * number), ("novel", 0.8 - 0.03 * number))
        ]
        results.append({"run": asdict(run), "scores": scores, "epochs": [0] * 50})
    text = tables.write_table("base-to-novel", results, tmp_path)
    base, novel, both = (_rows(section) for section in text.split("\n## ")[1:])
    assert base["average"] == ["", "50.00", "61.00", "69.34", "85.89", "-24.89"]
    assert novel["average"][2] == "48.50"
    assert both["average"][2] == "54.04"  # of 61.00 and 48.50: not the mean of the harmonic means
    assert base["ImageNet"] == ["2", "50.00", "41.00 ± 1.41", "", "", ""]  # no source of the paper's figure
    assert both["ImageNet"][2] == "53.87"


def test_the_papers_settings_are_those_of_each_table(tables: ModuleType, tmp_path: Path) -> None:
    settings = tables.Settings("clip.pt", None, "fp32")
    found = {}
    for table in TABLES:
        for run in tables.planned(table, 1):
            options = tables.options_of(run, settings, tmp_path, tmp_path)
            assert (options["seed"], options["resume"]) == (1, True)
            found[table, run.dataset, run.shots] = options["epochs"], options["batch_size"]
    assert found["base-to-novel", "ImageNet", 16] == (40, 128)
    assert found["base-to-novel", "EuroSAT", 16] == (50, 32)
    assert found["few-shot", "ImageNet", 1] == (50, 32)
    assert found["cross-dataset", "ImageNet", 16] == found["domain", "ImageNet", 16] == (5, 32)
    assert len(found) == 11 + 55 + 1 + 1
    assert [run.seed for run in tables.planned("domain", 3)] == [1, 2, 3]
