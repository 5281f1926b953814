"""The files of a shipped model: measured, exported, and a card that says who taught it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgekit import model_store as modelfiles
from edgekit.cli import cli
from edgekit.device.engines.classifier import Classifier
from edgekit.export.publish import publish
from edgekit.files import sha256_of
from edgekit.models.clip.architecture import ClipConfig, Tower
from edgekit.models.clip.load import save_clip, seeded_model
from edgekit.models.data import EXPRESSIONS
from edgekit.models.data.readers import load_dataset


@pytest.fixture
def faces(draw_faces: Callable[..., Path], tmp_path: Path) -> Path:
    """FER-2013's splits, with a few pictures each."""
    return draw_faces(tmp_path / "faces", {"Training": 28, "PublicTest": 7, "PrivateTest": 7})


@pytest.mark.slow
def test_a_distilled_model_is_published_with_its_teacher_named(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ClipConfig(32, 16, Tower(64, 2, 1), Tower(64, 2, 1), 24, context_length=40)
    clip = tmp_path / "clip.safetensors"
    save_clip(clip, seeded_model(config, 1), config)
    short = ["--student", "mini-xception", "--epochs", "1", "--batch-size", "28", "--accelerator", "cpu"]
    teachers = ["--teacher", str(clip), "--data", str(faces), "-o", str(tmp_path / "run"), *short, "-q"]
    assert CliRunner().invoke(cli, ["distill", *teachers], catch_exceptions=False).exit_code == 0

    folder = tmp_path / "assets"
    exported = publish(tmp_path / "run/best.safetensors", load_dataset(faces), folder, "distilled")
    assert sorted(path.name for path in folder.iterdir()) == [
        f"distilled.{end}" for end in ("md", "onnx", "safetensors")
    ]
    contract = Classifier(folder / "distilled.onnx").contract
    assert contract.labels == EXPRESSIONS
    assert contract.architecture == "mini-xception@24"
    assert {entry.protocol for entry in contract.provenance.accuracy} > {"center-crop", "ten-crop"}
    card = (folder / "distilled.md").read_text()
    assert "## Teacher" in card
    assert "a CLIP that classifies by descriptions of the classes, `clip.safetensors`" in card
    assert sha256_of(clip) in card
    assert "their labels were not used" in card
    assert "loss cosine 1, kl 1, temperature 2." in card
    assert f"{exported.size_bytes:,}" in card
    monkeypatch.setattr(modelfiles, "ASSETS", folder)
    assert modelfiles.resolve_model("distilled") == folder / "distilled.onnx"
    assert modelfiles.shipped_models() == ("distilled",)


@pytest.mark.slow
def test_the_card_names_the_shipped_net_that_it_started_from(faces: Path, tmp_path: Path) -> None:
    run = ["train", "--data", str(faces), "-o", str(tmp_path / "run"), "--epochs", "1", "-q", "--init", "default"]
    done = CliRunner().invoke(cli, [*run, "--accelerator", "cpu"], catch_exceptions=False)
    assert done.exit_code == 0
    publish(tmp_path / "run/best.safetensors", load_dataset(faces), tmp_path / "assets", "distilled")
    card = (tmp_path / "assets/distilled.md").read_text()
    assert "The initial weights were those of `default`, the checkpoint with sha256 `" in card


@pytest.mark.slow
@pytest.mark.by_hand
def test_the_card_says_where_the_net_started(faces: Path, tmp_path: Path) -> None:
    for name, start in (("first", []), ("second", ["--init", str(tmp_path / "first/best.safetensors")])):
        run = ["train", "--data", str(faces), "-o", str(tmp_path / name), "--epochs", "1", "-q", *start]
        done = CliRunner().invoke(
            cli, [*run, "--model", "mini-xception", "--accelerator", "cpu"], catch_exceptions=False
        )
        assert done.exit_code == 0
        publish(tmp_path / name / "best.safetensors", load_dataset(faces), tmp_path / f"assets-{name}", "default")
    first, second = ((tmp_path / f"assets-{name}/default.md").read_text() for name in ("first", "second"))
    assert "The initial weights were random." in first
    start = f"sha256 `{sha256_of(tmp_path / 'first/best.safetensors')}`."
    assert f"The initial weights were those of the checkpoint with {start}" in second
