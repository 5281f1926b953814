"""The exported ONNX file: its content, its reproducibility, and errors of the export."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

import edgekit
from edgekit.contract import METADATA_KEY, Contract, InputSpec
from edgekit.device.engines.classifier import Classifier
from edgekit.errors import GateError, InputError, StorageError
from edgekit.export import to_onnx as module
from edgekit.export.run import export
from edgekit.export.to_onnx import Exported, to_onnx
from edgekit.files import sha256_of
from edgekit.models.checkpoint import Checkpoint, save_checkpoint
from edgekit.models.nets.edgecnn import EdgeCNN, EdgeCNNConfig
from edgekit.models.nets.grouped import GatherGroupConv2d, LearnedGroupConv2d
from edgekit.preprocess import to_tensor
from tests.exports import export_checkpoint

SMALL = EdgeCNNConfig(num_classes=3, stem_channels=16, layers_per_block=(1, 1, 1))


@pytest.fixture(scope="module")
def model(exported: Exported) -> onnx.ModelProto:
    return onnx.load(exported.path)


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_the_file_answers_as_the_net_does_for_any_batch(exported: Exported, edgecnn: nn.Module, batch: int) -> None:
    images = np.random.default_rng(batch).normal(size=(batch, 3, 44, 44)).astype(np.float32)
    (logits,) = ort.InferenceSession(exported.path).run(["logits"], {"image": images})
    with torch.no_grad():
        expected = edgecnn(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_old_runtimes_can_read_it(model: onnx.ModelProto, exported: Exported) -> None:
    assert model.ir_version == exported.ir_version <= 10
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", exported.opset)]
    assert exported.opset <= 21
    assert not model.functions
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.skipif(
    "EDGEKIT_ONNXRUNTIME_1_20" not in os.environ, reason="names a folder made by 'pip install --target'"
)
def test_onnxruntime_1_20_reads_it(exported: Exported) -> None:
    code = (
        "import sys, numpy, onnxruntime; assert onnxruntime.__version__.startswith('1.20.');"
        "session = onnxruntime.InferenceSession(sys.argv[1]);"
        "print(session.run(None, {'image': numpy.ones((3, 3, 44, 44), numpy.float32)})[0].tolist())"
    )
    environment = {**os.environ, "PYTHONPATH": os.environ["EDGEKIT_ONNXRUNTIME_1_20"]}
    done = subprocess.run(
        [sys.executable, "-c", code, exported.path], env=environment, check=True, capture_output=True, text=True
    )
    (here,) = ort.InferenceSession(exported.path).run(None, {"image": np.ones((3, 3, 44, 44), np.float32)})
    np.testing.assert_allclose(np.array(json.loads(done.stdout)), here, atol=1e-4)


def test_no_batchnorm_is_left_and_one_convolution_a_layer(model: onnx.ModelProto) -> None:
    kinds = [node.op_type for node in model.graph.node]
    assert "BatchNormalization" not in kinds
    assert kinds.count("Conv") == 31


def test_weights_are_inside_the_file(model: onnx.ModelProto) -> None:
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in model.graph.initializer)


def test_the_file_carries_the_checkpoints_contract_and_where_it_came_from(
    model: onnx.ModelProto, exported: Exported, contract: Contract, checkpoint: Path
) -> None:
    (entry,) = model.metadata_props
    assert entry.key == METADATA_KEY
    read = Contract.from_json(entry.value)
    assert read == exported.contract
    assert read.provenance.checkpoint_sha256 == sha256_of(checkpoint)
    assert read.provenance.edgekit_version == edgekit.__version__
    assert read.verified_level == "all"
    assert replace(read, provenance=contract.provenance, verified_level=None) == contract


def test_layers_have_the_names_of_their_modules(model: onnx.ModelProto) -> None:
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert names[:6] == [
        "stem",
        "stem_pool",
        "blocks.0.0.expand",
        "blocks.0.0.relu",
        "blocks.0.0.reduce",
        "blocks.0.0.concat",
    ]
    assert {"stem.weight", "blocks.2.6.reduce.bias", "classifier.weight"} <= {
        tensor.name for tensor in model.graph.initializer
    }
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["image", "logits"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_nothing_of_this_machine_is_in_the_file(model: onnx.ModelProto, exported: Exported) -> None:
    content = exported.path.read_bytes()
    places = (Path(edgekit.__file__).parents[1], Path.home(), Path(sys.prefix), Path(sys.base_prefix))
    for trace in (*map(str, places), ".py", "torch", "pkg.", "site-packages"):
        assert trace.encode() not in content
    graph = model.graph
    assert not any(item.doc_string or item.metadata_props for item in (graph, *graph.node, *graph.input, *graph.output))


@pytest.mark.parametrize(
    ("make_conv", "shares", "is_grouped"),
    [
        (LearnedGroupConv2d, 1, True),
        pytest.param(LearnedGroupConv2d, 2, False, marks=pytest.mark.slow),
        (GatherGroupConv2d, 1, True),
    ],
    ids=["learned", "learned, half trained", "condensed"],
)
def test_grouped_nets_are_condensed_or_fold_masks_and_both_normalisations(
    contract: Contract, make_conv: type, shares: int, is_grouped: bool, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    net = _stirred(EdgeCNN(SMALL, make_conv, shuffle_groups=4))
    for layer in net.modules():
        if isinstance(layer, LearnedGroupConv2d):
            layer.drop_connections(shares * layer.inputs_per_group)
        if isinstance(layer, GatherGroupConv2d):
            layer.index.copy_(torch.randperm(len(layer.index)))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    model = to_onnx(net.train(), replace(contract, labels=("a", "b", "c")))
    assert not net.training
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    kinds = {node.op_type for node in model.graph.node}
    assert not {"BatchNormalization", "Mul", "Expand"} & kinds
    assert ("Gather" in kinds) == is_grouped
    path = tmp_path / "small.onnx"
    onnx.save(model, path)
    crops = np.random.default_rng(0).integers(0, 256, (4, 44, 44, 1), np.uint8)
    classifier = Classifier(path)
    images = torch.from_numpy(to_tensor(crops, classifier.contract.input))
    with torch.no_grad():
        np.testing.assert_allclose(classifier.logits(crops), net(images).numpy(), atol=1e-5)


def test_a_net_for_another_input_is_refused(contract: Contract) -> None:
    gray = replace(contract, input=InputSpec("image", (44, 44), "gray", 1 / 255, (0.0,), (1.0,)))
    with pytest.raises(InputError, match=r"edgecnn does not take the contract's input \[1, 44, 44\]") as caught:
        to_onnx(EdgeCNN(EdgeCNNConfig(7)), gray)
    assert "\n" not in str(caught.value)


def test_a_net_with_another_number_of_classes_is_refused(contract: Contract) -> None:
    with pytest.raises(InputError, match=r"edgecnn returns \[2, 3\] .* the contract's labels need \[2, 7\]"):
        to_onnx(EdgeCNN(SMALL), contract)


def test_a_checkpoint_of_another_architecture_is_refused_by_name(
    contract: Contract, edgecnn: nn.Module, tmp_path: Path
) -> None:
    path = tmp_path / "wrong.safetensors"
    save_checkpoint(path, Checkpoint(replace(contract, architecture="edgecnn-wide"), edgecnn.state_dict()))
    with pytest.raises(InputError, match=r"checkpoint '.*wrong.safetensors': the weights do not fit edgecnn-wide"):
        export(path, tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["wrong.safetensors"]


def test_only_onnx_is_taken_as_the_name_of_the_output(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must end in '.onnx'"):
        export_checkpoint(checkpoint, tmp_path / "model.bin")


@pytest.mark.parametrize(
    ("failure", "seen"),
    [(GateError("no"), GateError), (KeyboardInterrupt(), KeyboardInterrupt), (OSError(28, "full"), StorageError)],
)
def test_whatever_goes_wrong_the_old_file_stays(
    monkeypatch: pytest.MonkeyPatch,
    checkpoint: Path,
    tmp_path: Path,
    failure: BaseException,
    seen: type[BaseException],
) -> None:
    def fail(path: Path, *_: object, **__: object) -> None:
        assert path.stat().st_size == 8
        raise failure

    small = onnx.ModelProto(producer_name="stands")
    monkeypatch.setattr(module, "convert", lambda *_: (small, {}))
    monkeypatch.setattr(module, "check_export", fail)
    target = tmp_path / "model.onnx"
    target.write_bytes(b"old")
    with pytest.raises(seen):
        export_checkpoint(checkpoint, target)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert target.read_bytes() == b"old"


def test_warnings_of_others_still_show_during_an_export(contract: Contract) -> None:
    class Warns(EdgeCNN):
        def forward(self, images: Tensor) -> Tensor:
            import warnings

            warnings.warn("look here", UserWarning, stacklevel=1)
            return super().forward(images)

    with pytest.warns(UserWarning, match="look here") as seen:
        to_onnx(Warns(SMALL), replace(contract, labels=("a", "b", "c")))
    # Once in the trial forward pass, and again during tracing.
    assert len(seen) > 1


def _stirred(net: EdgeCNN) -> EdgeCNN:
    generator = torch.Generator().manual_seed(0)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.uniform_(-0.5, 0.5, generator=generator)
            layer.running_var.uniform_(0.3, 2.0, generator=generator)
    return net.eval()
