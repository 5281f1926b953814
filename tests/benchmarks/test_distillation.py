"""The distillation benchmarks: times of training steps, and accuracies of merged classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch

from edgekit.models.checkpoints.checkpoint import Checkpoint, save_checkpoint
from edgekit.models.clip.architecture import ClipConfig, Tower
from edgekit.models.clip.load import load_clip, save_clip, seeded_model
from edgekit.models.data import EXPRESSIONS, DataSet
from edgekit.models.data.readers import load_dataset
from edgekit.models.distill.clips import zero_shot_teacher
from edgekit.models.model_loading import contract_for
from edgekit.models.nets.embedding_net import EmbeddingNet
from edgekit.models.nets.registry import create_model

Load = Callable[[str], ModuleType]


@pytest.mark.parametrize("embed_dim", [None, 16])
def test_a_comparison_has_a_ratio_for_each_pair(load: Load, embed_dim: int | None) -> None:
    result = load("distillation").compare("mini-xception", embed_dim, batch=2, pairs=2, steps_per_side=1)
    assert len(result.ratios) == 2
    assert min(result.ratios) > 0


@pytest.fixture
def faces(tmp_path: Path) -> DataSet:
    generator = np.random.default_rng(0)
    for index, label in enumerate(EXPRESSIONS):
        file = tmp_path / "faces" / "test" / label / f"{index}.png"
        file.parent.mkdir(parents=True)
        assert cv2.imwrite(str(file), generator.integers(0, 255, (48, 48), dtype=np.uint8))
    return load_dataset(tmp_path / "faces")


def test_merged_classes_get_vectors_of_new_texts(load: Load, faces: DataSet, tmp_path: Path) -> None:
    config = ClipConfig(32, 16, Tower(64, 2, 1), Tower(64, 2, 1), 24, context_length=40)
    clip, path = tmp_path / "clip.safetensors", tmp_path / "best.safetensors"
    save_clip(clip, seeded_model(config, 1), config)
    texts: dict[str, Sequence[str]] = {label: (label,) for label in EXPRESSIONS}
    teacher = zero_shot_teacher(load_clip(clip), texts, torch.device("cpu"))
    assert teacher.space is not None
    net = create_model("mini-xception@24", 7)
    assert isinstance(net, EmbeddingNet)
    net.set_classes(torch.from_numpy(teacher.space.class_vectors), 100.0)
    contract = contract_for("mini-xception@24", EXPRESSIONS, "x", True)
    save_checkpoint(path, Checkpoint(contract, net.state_dict(), {"teacher": teacher.record()}))
    merges = ("good=happy,surprise", "bad=sad")
    found = load("distillation").merged_accuracies(path, faces, ("test", "test"), merges, None, str(clip), None)
    assert 0 <= found["vectors of new texts"] <= 1


def test_merged_classes_are_measured(load: Load, faces: DataSet, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = create_model("mini-xception@12", 7)
    assert isinstance(net, EmbeddingNet)
    # The embedding of each image is nearest to "happy".
    net.set_classes(torch.eye(7, 12), 10.0)
    with torch.no_grad():
        net.net.classifier.weight.zero_()
        net.net.classifier.bias.copy_(torch.eye(12)[3])
    path = tmp_path / "best.safetensors"
    save_checkpoint(path, Checkpoint(contract_for("mini-xception@12", EXPRESSIONS, "x", True), net.state_dict()))

    merges = ("good=happy,surprise", "bad=sad")
    found = load("distillation").merged_accuracies(path, faces, ("test", "test"), merges, None, None, None)
    ways = ("sum of old probabilities", "mean of old vectors", "mean of old vectors and an offset")
    assert found == dict.fromkeys(ways, pytest.approx(2 / 3))


def test_an_offset_makes_a_mean_count_as_a_sum(load: Load) -> None:
    vectors = torch.nn.functional.normalize(torch.randn(7, 12), dim=1)
    contract = contract_for("mini-xception@12", EXPRESSIONS, "x", True)
    logits = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)
    groups = {"one": ("happy",), "more": ("sad", "fear")}
    checkpoint = Checkpoint(contract, {"class_vectors": vectors})
    means, sums = load("distillation").means_and_sums(checkpoint, groups, logits)
    happy, sad, fear = (EXPRESSIONS.index(name) for name in ("happy", "sad", "fear"))
    np.testing.assert_allclose(means[:, 0], logits[:, happy], rtol=1e-5)
    length = (vectors[sad] + vectors[fear]).norm() / 2
    np.testing.assert_allclose(means[:, 1], logits[:, [sad, fear]].mean(axis=1) / length.item(), rtol=1e-5)
    np.testing.assert_allclose(np.exp(sums[:, 1]), np.exp(logits[:, [sad, fear]]).sum(axis=1), rtol=1e-5)
