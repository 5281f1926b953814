"""The check of an exported file compares logits and refuses a file that differs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from edgekit.contract import METADATA_KEY, Contract
from edgekit.device.engines.classifier import portrait_crops
from edgekit.errors import GateError
from edgekit.export.to_onnx import Exported
from edgekit.export.verification.comparison import check_export
from edgekit.models.checkpoint import load_checkpoint, save_checkpoint
from edgekit.preprocess import ImageU8
from edgekit.tolerance import tolerance_for
from tests.exports import export_checkpoint

TOLERANCE = tolerance_for("float32", "onnxruntime").logits


@pytest.fixture(scope="module")
def crops(contract: Contract) -> ImageU8:
    return portrait_crops(contract)


def test_an_export_agrees_with_its_checkpoint(
    exported: Exported, edgecnn: nn.Module, contract: Contract, crops: ImageU8
) -> None:
    result = check_export(exported.path, edgecnn, contract)
    assert result.crops == len(crops)
    assert result.max_abs_difference < TOLERANCE
    assert result.batch_difference < TOLERANCE
    assert result == exported.verification


@pytest.mark.slow
def test_large_logits_may_differ_by_their_rounding(checkpoint: Path, tmp_path: Path) -> None:
    """As in a student of a CLIP whose texts hardly differ."""
    loaded = load_checkpoint(checkpoint)
    state = {name: value * 1e5 if name.startswith("classifier") else value for name, value in loaded.state.items()}
    save_checkpoint(tmp_path / "large.safetensors", replace(loaded, state=state))
    found = export_checkpoint(tmp_path / "large.safetensors", tmp_path / "large.onnx").verification
    assert TOLERANCE < found.max_abs_difference < found.tolerance


def changed(exported: Exported, target: Path, name: str, by: float) -> Path:
    """Write the export with `by` added to the first value of one tensor."""
    model = onnx.load(exported.path)
    tensor = next(each for each in model.graph.initializer if each.name == name)
    array = numpy_helper.to_array(tensor).copy()
    array.flat[0] += by
    tensor.CopyFrom(numpy_helper.from_array(array, name))
    onnx.save(model, target)
    return target


@pytest.mark.parametrize("by", [2e-4, float("nan")])
def test_a_file_with_one_wrong_weight_is_refused_with_the_difference(
    exported: Exported, edgecnn: nn.Module, contract: Contract, tmp_path: Path, by: float
) -> None:
    path = changed(exported, tmp_path / "wrong.onnx", "classifier.bias", by)
    with pytest.raises(GateError, match=r"logits differ by up to (2\.\d+e-04|nan)"):
        check_export(path, edgecnn, contract)


def test_another_scaling_in_the_files_contract_is_refused(
    exported: Exported, edgecnn: nn.Module, contract: Contract, tmp_path: Path
) -> None:
    model = onnx.load(exported.path)
    other = replace(contract, input=replace(contract.input, mean=(0.51, 0.4, 0.3)))
    helper.set_model_props(model, {METADATA_KEY: other.to_json()})
    path = tmp_path / "other.onnx"
    onnx.save(model, path)
    with pytest.raises(GateError, match="differs from the checkpoint"):
        check_export(path, edgecnn, contract)


def test_a_file_whose_faces_influence_each_other_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    class MeanOfBatch(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits = images.mean(dim=(2, 3))
            return logits - logits.mean(dim=0, keepdim=True)

    model = onnx.load(tiny_model)
    (tiny_contract,) = (Contract.from_json(entry.value) for entry in model.metadata_props)
    model.graph.node[1].output[0] = "flat"
    model.graph.node.extend(
        [
            helper.make_node("ReduceMean", ["flat"], ["middle"], axes=[0], keepdims=1),
            helper.make_node("Sub", ["flat", "middle"], ["logits"]),
        ]
    )
    path = tmp_path / "batch.onnx"
    onnx.save(model, path)
    with pytest.raises(GateError, match="logits of one image and of a batch differ"):
        check_export(path, MeanOfBatch(), tiny_contract)


def test_portrait_crops_are_many_views_of_one_face(contract: Contract, crops: ImageU8) -> None:
    assert crops.shape == (54, 44, 44, 1)
    assert crops.dtype == np.uint8
    assert len({crop.tobytes() for crop in crops}) == 54
    assert crops.std(axis=(1, 2, 3)).min() > 20
    np.testing.assert_array_equal(crops, portrait_crops(contract))
    # Each crop is followed by its mirror image, up to rounding of the box.
    assert np.abs(crops[0::2].astype(int) - crops[1::2, :, ::-1]).mean() < 4
