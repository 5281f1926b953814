"""External nets are trained, saved, loaded and exported like edgekit's own nets."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from edgekit.errors import InputError
from edgekit.models.checkpoint import load_checkpoint
from edgekit.models.data import DataSet
from edgekit.models.data.augment import Augmentation
from edgekit.models.model_loading import build_net, contract_for
from edgekit.models.nets.registry import create_model, parameter_count
from edgekit.models.training.loop import BEST_NAME, train_job
from edgekit.models.training.recipes import Recipe
from edgekit.models.training.task import ClassificationTask
from tests.exports import export_checkpoint
from tests.resuming import job_of

PARAMETERS = {
    "mini-xception": 57_095,
    "separable": 184_087,
    "mobilenetv2": 2_232_839,
    "mobilenetv3-small": 1_525_031,
    "shufflenetv2-x0.5": 348_967,
}
# Own nets and the smallest net of torchvision; the other nets use the same code, but take longer. One of these is
# enough for the tests of every day.
MACS = {"mini-xception": 4_708_128, "separable": 13_697_904, "shufflenetv2-x0.5": 2_226_544}
# Two steps, because the learning rate of the last step is 0.
TWO_STEPS = Recipe(epochs=1, augmentation=Augmentation(crop_px=44), batch_size=4, max_lr=0.01)


@pytest.mark.parametrize("name", PARAMETERS)
def test_nets_have_the_known_number_of_parameters(name: str) -> None:
    with torch.device("meta"):
        assert parameter_count(create_model(name, 7)) == PARAMETERS[name]


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name == "separable" else [pytest.mark.slow]) for name in MACS],
)
def test_a_net_trains_and_exports_to_a_file_with_the_same_outputs(name: str, bars: DataSet, tmp_path: Path) -> None:
    few = {split: bars.splits[split].subset(torch.arange(8).numpy()) for split in ("Training", "PublicTest")}
    contract = contract_for(name, bars.classes, bars.name, gray=True)
    job = job_of(ClassificationTask(contract, TWO_STEPS, few["Training"], few["PublicTest"]), TWO_STEPS)
    torch.manual_seed(0)
    fresh = create_model(name, 7)
    train_job(job, tmp_path)

    trained = build_net(load_checkpoint(tmp_path / BEST_NAME))
    before, after = fresh.state_dict(), trained.state_dict()
    changed = [key for key in before if before[key].is_floating_point() and not torch.equal(before[key], after[key])]
    assert len(changed) > len(before) / 2

    # The export compares the file's logits with torch.
    exported = export_checkpoint(tmp_path / BEST_NAME, tmp_path / "net.onnx")
    assert exported.cost.macs == MACS[name]
    assert exported.cost.moved_bytes is not None
    assert "BatchNormalization" not in {layer.op_type for layer in exported.cost.layers}


def test_a_missing_library_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.delitem(sys.modules, "torchvision.models", raising=False)
    with pytest.raises(InputError, match=r"comes from torchvision, which is not installed: pip install .*\[train\]"):
        create_model("mobilenetv2", 7)
