"""`edgekit distill`, and `edgekit export` with other labels, from the command line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from edgekit.device.engines.classifier import Classifier
from edgekit.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgekit.models.clip.architecture import ClipConfig, Tower
from edgekit.models.clip.load import save_clip
from edgekit.models.data import EXPRESSIONS
from edgekit.models.data.ferplus import COLUMNS
from edgekit.models.data.layout import canonical_class
from edgekit.models.model_loading import contract_for
from edgekit.models.nets.registry import create_model
from tests.clips import random_clip
from tests.images import write_image

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def faces(draw_faces: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder data set with 14 training images and 7 validation images."""
    return draw_faces(tmp_path_factory.mktemp("faces"), {"train": 14, "val": 7})


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training folder that contains only the checkpoint of an untrained net."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("teacher")
    net = create_model("mini-xception", 7)
    contract = contract_for("mini-xception", EXPRESSIONS, "any", gray=True)
    save_checkpoint(folder / "best.safetensors", Checkpoint(contract, net.state_dict()))
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.safetensors"
    config = ClipConfig(image_size_px=32, patch_size_px=16, vision=Tower(128, 2, 2), text=Tower(64, 2, 1), embed_dim=24)
    save_clip(path, random_clip(config).model, config)
    return path


SHORT = ("--student", "mini-xception", "--epochs", 1, "--batch-size", 7, "--accelerator", "cpu")


def test_a_pretrained_net_of_whole_images_teaches_edgecnn(edgekit: Run, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2)):
        for label, level in (("bolt", 40), ("nut", 180)):
            for number in range(count):
                image = generator.integers(level, level + 40, (60, 80, 3), dtype=np.uint8)
                write_image(tmp_path / "data" / split / label / f"{number}.png", image)
    contract = contract_for("efficientnet-lite0", ("bolt", "nut"), "data", gray=False, fit="pad", image_size_px=64)
    net = create_model("efficientnet-lite0", 2)
    save_checkpoint(tmp_path / "best.safetensors", Checkpoint(replace(contract, subject="image"), net.state_dict()))
    options = ("--student", "edgecnn", "--epochs", 1, "--batch-size", 4, "--accelerator", "cpu")
    code, _, err = edgekit(
        "distill", "--teacher", tmp_path, "--data", tmp_path / "data", "-o", tmp_path / "small", *options
    )
    assert code == 0, err
    student = load_checkpoint(tmp_path / "small/best.safetensors").contract
    assert (student.architecture, student.labels, student.subject) == ("edgecnn", ("bolt", "nut"), "image")
    assert (student.input.size_hw, student.crop.fit) == ((44, 44), "pad")


def test_a_classifier_teaches_and_its_outputs_are_kept(
    edgekit: Run, faces: Path, teacher: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    arguments = ["distill", "--teacher", teacher, "--data", faces, "-o", output, *SHORT, "--json"]
    code, out, err = edgekit(*arguments)
    assert code == 0, err
    document = json.loads(out)
    assert document["checkpoint"] == str(output / "best.safetensors")
    assert document["teacher"]["kind"] == "classifier"
    assert document["loss_weights"] == {"kl": 1.0, "ce": 0.1, "cosine": 0.0}
    assert 0 <= document["agreement"] <= 1
    assert f"{document['teacher_accuracy']:.2%}" in err
    assert load_file(output / "teacher.safetensors")["logits"].shape == (14, 7)
    assert load_checkpoint(output / "best.safetensors").training["teacher"] == document["teacher"]
    before = (output / "best.safetensors").read_bytes()
    code, _, err = edgekit(*arguments, "--resume")
    assert code == 0, err
    assert (output / "best.safetensors").read_bytes() == before


@pytest.mark.slow
def test_a_clips_student_gets_other_labels_at_export(edgekit: Run, faces: Path, clip: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    code, out, err = edgekit("distill", "--teacher", clip, "--data", faces, "-o", output, *SHORT, "--quiet")
    assert (code, out, err) == (0, "", "")
    assert load_file(output / "teacher.safetensors")["embeddings"].shape == (14, 24)
    student = output / "best.safetensors"
    assert edgekit("inspect", student)[0] == 0
    assert edgekit("eval", student, "--data", faces, "--split", "val")[0] == 0
    model = tmp_path / "new.onnx"
    code, out, err = edgekit(
        "export", student, "--class", "smiling face", "--class", "sad", "--clip", clip, "-o", model
    )
    assert code == 0, err
    assert "smiling face, sad" in out
    assert Classifier(model).contract.labels == ("smiling face", "sad")
    file = tmp_path / "classes.json"
    file.write_text(json.dumps({"b": ["one", "two"], "a": ["three"]}))
    assert edgekit("export", student, "--classes", file, "--clip", clip, "-o", model)[0] == 0
    assert Classifier(model).contract.labels == ("b", "a")


@pytest.mark.slow
def test_a_plain_onnx_file_teaches_in_an_ensemble(edgekit: Run, faces: Path, teacher: Path, tmp_path: Path) -> None:
    import onnx

    assert edgekit("export", teacher / "best.safetensors", "-o", tmp_path / "plain.onnx")[0] == 0
    model = onnx.load(tmp_path / "plain.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "plain.onnx")
    code, _, err = edgekit(
        "distill", "--teacher", tmp_path / "plain.onnx", "--data", faces, "-o", tmp_path / "none", *SHORT
    )
    assert (code, "edgekit import" in err) == (2, True)
    labels = ["--labels", ",".join(EXPRESSIONS), "--subject", "face"]
    assert edgekit("import", tmp_path / "plain.onnx", "-o", tmp_path / "mine.onnx", *labels)[0] == 0
    sources = ["--teacher", tmp_path / "mine.onnx", "--teacher", teacher]
    code, out, err = edgekit("distill", *sources, "--data", faces, "-o", tmp_path / "run", *SHORT, "--json")
    assert code == 0, err
    assert json.loads(out)["teacher"]["kind"] == "ensemble"


def test_a_student_learns_from_votes_too(edgekit: Run, faces: Path, teacher: Path, tmp_path: Path) -> None:
    votes = tmp_path / "votes.csv"
    with votes.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["usage", *COLUMNS, "kaggle_path"])
        for file in sorted(faces.rglob("*.png")):
            column = [canonical_class(name) for name in COLUMNS].index(file.parent.name)
            counts = [8 if index == column else 0 for index in range(len(COLUMNS))]
            writer.writerow(["", *counts, file.relative_to(faces)])
    common = ["distill", "--teacher", teacher, "--data", faces, *SHORT, "--json"]
    mixed = ["--ferplus", votes, "--label-weight", 0.2, "-o", tmp_path / "mixed"]
    code, _, err = edgekit(*common, *mixed)
    assert code == 0, err
    training = load_checkpoint(tmp_path / "mixed/best.safetensors").training
    assert (training["ferplus"], training["label_weight"]) == ("mixed", 0.2)
    code, _, err = edgekit(*common, "--resume", "-o", tmp_path / "mixed")
    assert (code, "data_sha256" in err) == (2, True)
