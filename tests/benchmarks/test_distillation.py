"""The measurements of distilling compare what they say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch

from edgekit.models.checkpoints.checkpoint import Checkpoint, save_checkpoint
from edgekit.models.data import EXPRESSIONS
from edgekit.models.data.readers import load_dataset
from edgekit.models.model_loading import contract_for
from edgekit.models.nets.embedding_net import EmbeddingNet
from edgekit.models.nets.registry import create_model

Load = Callable[[str], ModuleType]


@pytest.mark.parametrize("embed_dim", [None, 16])
def test_a_comparison_has_a_ratio_for_each_pair(load: Load, embed_dim: int | None) -> None:
    result = load("distillation").compare("mini-xception", embed_dim, batch=2, pairs=2, steps_per_side=1)
    assert len(result.ratios) == 2
    assert min(result.ratios) > 0


def test_merged_classes_are_measured(load: Load, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for index, label in enumerate(EXPRESSIONS):
        file = tmp_path / "faces" / "test" / label / f"{index}.png"
        file.parent.mkdir(parents=True)
        assert cv2.imwrite(str(file), generator.integers(0, 255, (48, 48), dtype=np.uint8))
    torch.manual_seed(0)
    net = create_model("mini-xception@12", 7)
    assert isinstance(net, EmbeddingNet)
    # Whatever it sees, it is nearest to "happy".
    net.set_classes(torch.eye(7, 12), 10.0)
    with torch.no_grad():
        net.net.classifier.weight.zero_()
        net.net.classifier.bias.copy_(torch.eye(12)[3])
    path = tmp_path / "best.safetensors"
    save_checkpoint(path, Checkpoint(contract_for("mini-xception@12", EXPRESSIONS, "x", True), net.state_dict()))

    merges = ("good=happy,surprise", "bad=sad")
    dataset = load_dataset(tmp_path / "faces")
    found = load("distillation").merged_accuracies(path, dataset, ("test", "test"), merges, None, None, None)
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
