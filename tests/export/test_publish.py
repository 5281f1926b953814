"""Publishing a model: measurement, export, and a model card with its training and teacher."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from edgekit import model_store as modelfiles
from edgekit.cli import cli
from edgekit.device.engines.classifier import Classifier
from edgekit.device.imaging import read_image
from edgekit.errors import GateError, InputError
from edgekit.export.publish.card import card
from edgekit.export.publish.measure import Figures, Sources, figures_document
from edgekit.export.publish.results import BEGIN, END, results_tables, update_results
from edgekit.export.publish.run import publish, write_card
from edgekit.export.publish.training_text import training_section
from edgekit.export.run import export
from edgekit.files import sha256_of
from edgekit.model_store import asset
from edgekit.models.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgekit.models.clip.architecture import ClipConfig, Tower
from edgekit.models.clip.load import save_clip, seeded_model
from edgekit.models.data import EXPRESSIONS
from edgekit.models.model_loading import contract_for
from edgekit.models.nets.registry import create_model
from edgekit.preprocess import CROP_MARGIN
from tests.ferplus import save_votes


@pytest.fixture
def faces(draw_faces: Callable[..., Path], tmp_path: Path) -> Path:
    """FER-2013's splits, with a few pictures each."""
    return draw_faces(tmp_path / "faces", {"Training": 28, "PublicTest": 7, "PrivateTest": 7})


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Photographs: two of class happy with a face, one of class sad without a face."""
    portrait = read_image(asset("astronaut.png"))
    for name, image in (("happy/1.png", portrait), ("happy/2.png", portrait[:, ::-1]), ("sad/1.png", portrait[:50])):
        file = tmp_path / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(file), np.ascontiguousarray(image))
    return tmp_path / "photos"


def model_files(folder: Path) -> Path:
    """Copy the files of a shipped model into a new folder."""
    folder.mkdir()
    for suffix in ("onnx", "safetensors"):
        shutil.copy(asset(f"fer2013.{suffix}"), folder)
    return folder


def front_matter(card: str) -> dict[str, Any]:
    return yaml.safe_load(card.split("---\n")[1])


def test_a_card_has_the_hubs_front_matter_and_only_measured_figures(faces: Path, photos: Path, tmp_path: Path) -> None:
    folder, docs = model_files(tmp_path / "assets"), tmp_path / "docs"
    (docs / "reference").mkdir(parents=True)
    (docs / "reference/results.md").write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    save_votes(faces, tmp_path / "votes.csv")
    sources = Sources(faces, tmp_path / "votes.csv", photos, detector="haar")
    done = write_card(folder, "fer2013", sources, docs)
    card = done.card.read_text()
    front = front_matter(card)
    assert (front["license"], front["library_name"], front["datasets"]) == ("mit", "edgekit", ["fer2013", "ferplus"])
    [model] = front["model-index"]
    values = {
        (each["dataset"]["type"], each["metrics"][0]["name"]): each["metrics"][0]["value"] for each in model["results"]
    }
    document = json.loads((docs / "models/fer2013.json").read_text())
    correct = document["fer2013"]["center-crop"]["correct"]
    assert values["fer2013", "Accuracy, center-crop"] == pytest.approx(100 * correct / 7, abs=0.01)
    assert values["photographs", "Accuracy"] == 66.67
    assert "The training also used FER+ (Barsoum et al. 2016)" in card
    assert f"| FER-2013 PrivateTest | center-crop | {correct / 7:.2%} | {correct} of 7 |" in card
    assert "| FER+ PrivateTest | center-crop, majority among seven classes | " in card
    assert "| FER+ PrivateTest | center-flip, eight classes | " in card
    assert "| photographs | all; wrong if no face is detected | 66.67% | 2 of 3 |" in card
    assert "100.0% of 2 |" in card
    assert "by size (the short side of the face box" in card
    assert "by yaw" not in card  # Haar has no landmarks
    assert "(../docs/models/fer2013-photographs.png)" in card
    assert read_image(docs / "models/fer2013-photographs.png") is not None
    page = (docs / "reference/results.md").read_text()
    assert (page.startswith("before\n"), page.endswith("after\n"), "old" in page) == (True, True, False)
    assert f"{correct / 7:.2%} ({correct} of 7)" in page
    assert "| photographs, mean recall of five | 66.67% (2 of 3) | 50.00% |" in page


def test_a_card_states_what_was_not_measured(tmp_path: Path) -> None:
    card = write_card(model_files(tmp_path / "assets"), "fer2013", Sources()).card.read_text()
    assert "model-index" not in front_matter(card)
    assert card.count("| not measured |") == 3
    assert "| FER+ PrivateTest | | not measured | | |" in card
    assert "Not measured." in card


@pytest.mark.parametrize("name", ["default", "fer2013", "distilled"])
def test_the_shipped_cards_are_those_of_their_documents(name: str) -> None:
    models = Path(__file__).parents[2] / "docs/models"
    if not models.is_dir():
        pytest.skip("docs/models has no document: publish a model with --docs docs")
    document = json.loads((models / f"{name}.json").read_text())
    shipped = asset(f"{name}.md")
    picture = shipped.parents[2] / f"docs/models/{name}-photographs.png"
    training = load_checkpoint(asset(f"{name}.safetensors")).training
    assert shipped.read_text() == card(document, training, picture, shipped.parent)


def test_a_model_without_a_calibration_has_no_temperature_in_its_card() -> None:
    assert "The model is not calibrated." in asset("fer2013.md").read_text()
    assert "The temperature of the calibration is 0.741." in asset("default.md").read_text()


def test_the_threshold_of_uncertain_comes_from_the_contract() -> None:
    contract = SimpleNamespace(uncertain_below=0.45)
    assert figures_document(Figures({}, {}, None), contract)["uncertain_below"] == 0.45  # type: ignore[arg-type]


def test_the_command_of_a_card_has_the_strength_of_the_logit_adjustment() -> None:
    training = {**load_checkpoint(asset("fer2013.safetensors")).training, "prior_adjustment": {"strength": 0.1}}
    training["label_weight"] = 0.15
    assert "--label-weight 0.15 --prior-strength 0.1 --init START" in training_section("fer2013", training)


def test_the_command_of_a_card_has_the_options_that_differ_from_the_recipe() -> None:
    training = load_checkpoint(asset("fer2013.safetensors")).training
    assert "--init START --recipe fer2013-finish --epochs 36 --seed" in training_section("fer2013", training)
    recipe = {**training["recipe"], "max_lr": 0.02, "batch_size": 128, "mixup_alpha": 0.2, "balance": "none"}
    distillation = {**training["distillation"], "views": None, "out_of_fold": True, "unlabelled": "ab", "votes": None}
    changed = {"recipe": recipe, "distillation": distillation, "balance": "loss", "fold": {"folds": 5, "fold": 2}}
    section = training_section("fer2013", {**training, **changed})
    assert "--temperature 1 --on-the-fly --out-of-fold --unlabelled MORE --data" in section
    assert (
        "--folds 5 --fold 2 --recipe fer2013-finish --epochs 36 --balance loss --batch-size 128 --max-lr 0.02"
        in section
    )
    assert "--mixup-alpha 0.2 --seed" in section


def test_the_card_of_an_average_has_the_command_of_each_net() -> None:
    training = load_checkpoint(asset("fer2013.safetensors")).training
    nets = [
        {"name": "a", "sha256": "aa", "training": {**training, "initial_sha256": None}},
        {"name": "b", "sha256": "bb", "training": {**training, "seed": 7, "initial_sha256": "aa"}},
    ]
    section = training_section("default", {"average_of": nets, "ferplus_sha256": "cc"})
    assert "    edgekit average NET1 NET2 --data fer2013.tar.gz --ferplus ferplus_votes.csv\n" in section
    assert section.count("    edgekit distill --student edgecnn ") == 2
    assert section.count("- teacher: a classifier, ") == 4
    assert "--seed 7 " in section
    assert "\n\n\n" not in section
    assert (
        "checkpoint has sha256 `bb`. It is that of epoch 25 of 36.\nThe initial weights were those of NET1." in section
    )


def test_the_card_of_an_average_names_a_teacher_that_was_shipped_under_the_models_name() -> None:
    training = load_checkpoint(asset("fer2013.safetensors")).training
    teacher = {"kind": "classifier", "name": "default.onnx", "sha256": "ee"}
    nets = [{"name": name, "sha256": name * 2, "training": {**training, "teacher": teacher}} for name in ("a", "b")]
    line = "- teacher: a classifier, `default.onnx` (sha256 `ee`), shipped under this name before\n"
    assert training_section("default", {"average_of": nets}).count(line) == 2


def test_the_card_of_an_average_lists_the_nets_of_an_average_among_its_nets() -> None:
    training = load_checkpoint(asset("fer2013.safetensors")).training
    inner = [{"name": name, "sha256": name * 2} for name in ("c", "d")]
    nets = [
        {"name": "a", "sha256": "aa", "training": {"average_of": inner}},
        {"name": "b", "sha256": "bb", "training": {**training, "initial_sha256": "aa"}},
    ]
    section = training_section("default", {"average_of": nets, "prior_adjustment": {"strength": -0.1}})
    assert "](../../docs/how-to/training.md#faces-in-front-of-a-camera) has the commands of all nets." in section
    assert "    edgekit average NET1 NET2 --data fer2013.tar.gz --prior-strength -0.1\n" in section
    assert (
        "has sha256 `aa`. Its weights are the mean of the weights of these nets:\n\n- sha256 `cc`\n- sha256 `dd`\n"
        in section
    )
    assert section.count("The initial weights were those of NET1.") == 1
    assert "\n\n\n" not in section


def test_the_checksum_of_prompts_is_that_of_their_contents() -> None:
    training = load_checkpoint(asset("distilled.safetensors")).training
    digest = training["teacher"]["sha256"]
    section = training_section("distilled", training)
    assert f"(SHA-256 of the contents `{digest}`)" in section
    assert "    edgekit embed NET --teacher TEACHER --clip CLIP --data fer2013.tar.gz\n" in section
    assert "- NET: `default`, the checkpoint with sha256 `" in section


def test_the_card_of_an_average_of_unknown_nets_is_refused() -> None:
    with pytest.raises(InputError, match="has no record of its training"):
        training_section("default", {"average_of": [{"name": "a", "sha256": "aa"}]})


@pytest.mark.parametrize(
    "record",
    [
        {"average_of": [{"name": "a", "sha256": "aa"}]},  # the record of `edgekit average` without --data
        {"data_name": "fer2013", "data_sha256": "dd", "validation": "PublicTest", "average_of": 5},
        {"data_name": "fer2013", "data_sha256": "dd", "validation": "PublicTest", "average_of": [3]},
        {"imported_from_sha256": "aa"},
        {"best": None},
    ],
)
def test_a_record_that_a_card_cannot_be_written_from_is_refused_before_a_file_is_written(
    record: dict[str, Any], tmp_path: Path
) -> None:
    shipped = load_checkpoint(asset("fer2013.safetensors"))
    training = {**shipped.training, **record} if "best" in record else record
    save_checkpoint(tmp_path / "mine.safetensors", replace(shipped, training=training))
    with pytest.raises(InputError, match="record of its training is incomplete or damaged"):
        publish(tmp_path / "mine.safetensors", tmp_path / "assets", "fer2013", Sources())
    assert not (tmp_path / "assets").exists()


def test_a_page_without_marks_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lacks the marks"):
        update_results(tmp_path / "results.md", tmp_path)


def test_the_tables_of_the_results_page_are_those_of_the_documents() -> None:
    docs = Path(__file__).parents[2] / "docs"
    if not (docs / "models").is_dir():
        pytest.skip("docs/models has no document: publish a model with --docs docs")
    page = (docs / "reference/results.md").read_text()
    assert page.partition(f"{BEGIN}\n\n")[2].partition(f"\n{END}")[0] == results_tables(docs / "models")


def test_a_published_model_keeps_its_image_size_and_gets_the_current_margin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_export(*_: object) -> None:
        raise GateError("the export is not needed here")

    monkeypatch.setattr("edgekit.export.publish.run.export_checkpoint", no_export)
    contract = contract_for("mobilenetv3-small", EXPRESSIONS, "own", gray=True, fit="pad", image_size_px=96)
    old = replace(contract, crop=replace(contract.crop, margin=CROP_MARGIN / 2))
    training = load_checkpoint(asset("fer2013.safetensors")).training
    net = create_model("mobilenetv3-small", len(EXPRESSIONS))
    save_checkpoint(tmp_path / "mine.safetensors", Checkpoint(old, net.state_dict(), training))
    with pytest.raises(GateError):
        publish(tmp_path / "mine.safetensors", tmp_path / "assets", "fer2013", Sources())
    assert load_checkpoint(tmp_path / "assets/fer2013.safetensors").contract.crop == contract.crop


@pytest.mark.slow
def test_a_distilled_model_is_published_with_its_teacher_named(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ClipConfig(32, 16, Tower(64, 2, 1), Tower(64, 2, 1), 24, context_length=40)
    clip = tmp_path / "clip.safetensors"
    save_clip(clip, seeded_model(config, 1), config, {"texts": ["a happy face", "a sad face"]})
    short = ["--student", "mini-xception", "--epochs", "1", "--batch-size", "28", "--accelerator", "cpu"]
    teachers = ["--teacher", str(clip), "--data", str(faces), "-o", str(tmp_path / "run"), *short, "-q"]
    assert CliRunner().invoke(cli, ["distill", *teachers], catch_exceptions=False).exit_code == 0

    folder = tmp_path / "assets"
    published = publish(tmp_path / "run/best.safetensors", folder, "distilled", Sources(faces))
    assert sorted(path.name for path in folder.iterdir()) == [
        f"distilled.{end}" for end in ("md", "onnx", "safetensors", "text.safetensors")
    ]
    contract = Classifier(folder / "distilled.onnx").contract
    assert contract.labels == EXPRESSIONS
    assert contract.architecture == "mini-xception@24"
    assert {entry.protocol for entry in contract.provenance.accuracy} > {"center-crop", "ten-crop"}
    card = (folder / "distilled.md").read_text()
    assert "## Teacher" in card
    assert "a CLIP that classifies by descriptions of the classes, `clip.safetensors`" in card
    assert sha256_of(clip) in card
    assert "The labels of the images\nwere not used" in card
    assert "cosine 1, kl 1. The temperature of the distillation is 2." in card
    assert f"{published.onnx.stat().st_size:,}" in card
    mood = export(folder / "distilled.safetensors", tmp_path / "mood.onnx", classes=["happy", "sad"])
    assert mood.contract.labels == ("happy", "sad")
    monkeypatch.setattr(modelfiles, "ASSETS", folder)
    assert modelfiles.resolve_model("distilled") == folder / "distilled.onnx"
    assert modelfiles.shipped_models() == ("distilled",)


@pytest.mark.slow
def test_the_card_names_the_shipped_net_that_it_started_from(faces: Path, tmp_path: Path) -> None:
    run = ["train", "--data", str(faces), "-o", str(tmp_path / "run"), "--epochs", "1", "-q", "--init", "default"]
    done = CliRunner().invoke(cli, [*run, "--accelerator", "cpu"], catch_exceptions=False)
    assert done.exit_code == 0
    publish(tmp_path / "run/best.safetensors", tmp_path / "assets", "distilled", Sources(faces))
    card = (tmp_path / "assets/distilled.md").read_text()
    assert "The initial weights were those of `default`, the checkpoint with sha256 `" in card


@pytest.mark.slow
def test_the_card_states_the_weights_from_which_the_training_started(faces: Path, tmp_path: Path) -> None:
    for name, start in (("first", []), ("second", ["--init", str(tmp_path / "first/best.safetensors")])):
        run = ["train", "--data", str(faces), "-o", str(tmp_path / name), "--epochs", "1", "-q", *start]
        done = CliRunner().invoke(
            cli, [*run, "--model", "mini-xception", "--accelerator", "cpu"], catch_exceptions=False
        )
        assert done.exit_code == 0
        publish(tmp_path / name / "best.safetensors", tmp_path / f"assets-{name}", "default", Sources(faces))
    first, second = ((tmp_path / f"assets-{name}/default.md").read_text() for name in ("first", "second"))
    assert "The initial weights were random." in first
    start = f"sha256 `{sha256_of(tmp_path / 'first/best.safetensors')}`."
    assert f"The initial weights were those of the checkpoint with {start}" in second
