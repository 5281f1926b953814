"""Initial weights of a training: all weights of a checkpoint, or all except the last layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit.models.checkpoint import Checkpoint, save_checkpoint
from edgekit.models.data import ImageSet
from edgekit.models.model_loading import contract_for
from edgekit.models.nets.registry import NETS, create_model
from edgekit.models.training.init_weights import read_initial_weights
from edgekit.models.training.linear_layer import with_fitted_layer

LABELS = ("a", "b", "c")


def _checkpoint(path: Path, name: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    state = create_model(name, len(LABELS)).state_dict()
    save_checkpoint(path, Checkpoint(contract_for(name, LABELS, "any", True), state))
    return state


@pytest.mark.parametrize("name", NETS)
def test_other_labels_take_all_but_the_last_layer(name: str, tmp_path: Path) -> None:
    path, lines = tmp_path / "start.safetensors", list[str]()
    state = _checkpoint(path, name)
    found = read_initial_weights(path, contract_for(name, ("x", "y", "z"), "any", True), lines.append).state
    left_out = state.keys() - found.keys()
    assert 1 <= len(left_out) <= 2
    assert all(len(LABELS) in state[each].shape for each in left_out)
    assert all(torch.equal(found[each], state[each]) for each in found)
    assert "except for the last layer" in lines[0]


def test_the_same_labels_take_all(tmp_path: Path) -> None:
    path, lines = tmp_path / "start.safetensors", list[str]()
    state = _checkpoint(path, "mini-xception@16")
    found = read_initial_weights(path, contract_for("mini-xception@16", LABELS, "any", True), lines.append).state
    assert found.keys() == state.keys()
    assert not lines


@pytest.mark.parametrize(
    ("own", "new"), [("edgecnn", "edgecnn@16"), ("edgecnn@16", "edgecnn"), ("edgecnn@16", "edgecnn@8")]
)
def test_into_a_space_and_out_of_it(own: str, new: str, tmp_path: Path) -> None:
    path = tmp_path / "start.safetensors"
    state = _checkpoint(path, own)
    found = read_initial_weights(path, contract_for(new, LABELS, "any", True), print).state
    missing, unexpected = create_model(new, len(LABELS)).load_state_dict(found, strict=False)
    assert not unexpected
    assert {name.removeprefix("net.") for name in missing} - {"class_vectors", "logit_scale"} == {
        "classifier.weight",
        "classifier.bias",
    }
    loaded, old = ({name.removeprefix("net."): tensor for name, tensor in each.items()} for each in (found, state))
    assert all(torch.equal(tensor, old[name]) for name, tensor in loaded.items())


def test_a_fitted_last_layer_replaces_the_rows_of_common_classes(tmp_path: Path) -> None:
    path = tmp_path / "start.safetensors"
    old = _checkpoint(path, "edgecnn")["classifier.weight"]
    contract = contract_for("edgecnn", ("c", "d"), "any", True)
    initial = read_initial_weights(path, contract, print)
    own = create_model("edgecnn", 2).state_dict()
    assert torch.equal(initial.merged_into(own)["classifier.weight"][0], old[LABELS.index("c")])
    images = np.random.default_rng(0).integers(0, 256, (8, 48, 48, 1), np.uint8)
    fitted = with_fitted_layer(initial, contract, ImageSet(images, np.arange(8) % 2))
    assert not torch.equal(fitted.merged_into(own)["classifier.weight"][0], old[LABELS.index("c")])
    assert torch.equal(fitted.merged_into(own)["classifier.weight"], fitted.state["classifier.weight"])
