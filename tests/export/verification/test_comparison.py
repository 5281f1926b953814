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

from edgekit.contract import METADATA_KEY, Contract, CropSpec, InputSpec, LabelMap
from edgekit.device.detection import create_detector
from edgekit.device.engines.classifier import portrait_crops
from edgekit.device.imaging import read_image
from edgekit.errors import GateError
from edgekit.export.to_onnx import Exported
from edgekit.export.verification.comparison import check_export
from edgekit.model_store import asset
from edgekit.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgekit.models.model_loading import build_merged_net, import_authors_checkpoint
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


@pytest.mark.slow
def test_merged_logits_may_differ_by_the_rounding_of_the_old_ones(checkpoint: Path, tmp_path: Path) -> None:
    loaded = load_checkpoint(checkpoint)
    weight = loaded.state["classifier.weight"]
    state = {**loaded.state, "classifier.weight": weight + 1e4 * weight[:1]}  # all logits have one large term
    save_checkpoint(tmp_path / "large.safetensors", replace(loaded, state=state))
    first, second, *rest = loaded.contract.labels
    merges = LabelMap(("both", "rest"), ((first, second), tuple(rest)))

    def merged(checkpoint: Checkpoint) -> tuple[nn.Module, Contract]:
        return build_merged_net(checkpoint, merges)

    found = export_checkpoint(tmp_path / "large.safetensors", tmp_path / "large.onnx", merged).verification
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


@pytest.mark.parametrize("by", [2e-4, float("nan"), float("inf")])
def test_a_file_with_one_wrong_weight_is_refused_with_the_difference(
    exported: Exported, edgecnn: nn.Module, contract: Contract, tmp_path: Path, by: float
) -> None:
    path = changed(exported, tmp_path / "wrong.onnx", "classifier.bias", by)
    with pytest.raises(
        GateError, match=r"on 54 crops of the test picture: logits differ by up to (2\.\d+e-04|nan|inf)"
    ):
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


def test_portrait_crops_keep_colour_where_the_contract_does(contract: Contract) -> None:
    crop = CropSpec(margin=0.0, grayscale=False, resize_hw=(32, 32), center_crop_hw=(32, 32))
    spec = InputSpec("image", (32, 32), "bgr", 1.0, (0.0,) * 3, (1.0,) * 3)
    colour = portrait_crops(replace(contract, crop=crop, input=spec))
    assert colour.shape == (54, 32, 32, 3)
    red, _, blue = colour.mean(axis=(0, 1, 2))
    assert red > blue


def test_the_portraits_box_is_where_a_detector_finds_the_face() -> None:
    from edgekit.device.engines import classifier as module

    found = create_detector("haar", notify=print).detect(read_image(asset("astronaut.png"))).xyxy
    box = np.array(module._FACE_XYXY)
    overlaps = []
    for other in found:
        low, high = np.maximum(box[:2], other[:2]), np.minimum(box[2:], other[2:])
        shared = np.prod(np.maximum(high - low, 0))
        overlaps.append(shared / (np.prod(box[2:] - box[:2]) + np.prod(other[2:] - other[:2]) - shared))
    assert max(overlaps) > 0.5


@pytest.mark.slow
def test_the_authors_checkpoint_is_exported_exactly_on_real_faces(
    shared: Path, tmp_path: Path, contract: Contract
) -> None:
    import tarfile

    from edgekit.device.imaging import decode_image, resize
    from edgekit.models.checkpoint import load_checkpoint, save_checkpoint
    from edgekit.models.model_loading import build_net
    from edgekit.preprocess import crop_image

    path = tmp_path / "authors.safetensors"
    theirs = shared / "reference/edgecnn/FER2013_EdgeCNN_PrivateTest_model.t7"
    save_checkpoint(path, import_authors_checkpoint(theirs, contract.labels, "fer2013", gray=True))
    exported = export_checkpoint(path, tmp_path / "authors.onnx")
    assert exported.verification.max_abs_difference < TOLERANCE
    checkpoint = load_checkpoint(path)
    crop, size_hw = checkpoint.contract.crop, checkpoint.contract.input.size_hw
    faces = []
    with tarfile.open(shared / "data/fer2013.tar.gz") as archive:
        for member in archive:
            if member.name.endswith(".jpg"):
                stream = archive.extractfile(member)
                assert stream is not None
                image = decode_image(stream.read(), member.name)
                faces.append(crop_image(image, crop, size_hw, resize))
            if len(faces) == 200:
                break
    result = check_export(exported.path, build_net(checkpoint), checkpoint.contract, crops=np.stack(faces))
    assert result.crops == 200
