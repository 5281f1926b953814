"""Each rewrite on a graph that it applies to and on graphs that it must not change; all rewrites on random nets."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.contract import Contract
from edgekit.device.engines.classifier import Classifier
from edgekit.export.passes.table import REWRITES
from edgekit.export.profiling.cost import graph_cost
from edgekit.export.targets import chosen_passes
from edgekit.files import sha256_of
from tests.examples import examples
from tests.export.nets import Builder, after, contract_of, random_nets
from tests.exports import export_checkpoint


def kinds(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def dense_net(layers: int = 4, growth: int = 8, stem: int = 16, groups: int = 1) -> Builder:
    net = Builder(1)
    net.conv(stem)
    for _ in range(layers):
        net.dense(growth, groups=groups)
    return net


def test_presets_fit_the_kind_of_file() -> None:
    assert chosen_passes("a53") == REWRITES.keys()
    assert chosen_passes("a53", quantized=True) == {"gray-stem", "merge-pool"}


@pytest.mark.parametrize("std", [(1.0,) * 3, (0.2, 0.3, 0.4)])
def test_gray_stem_reads_one_channel(std: tuple[float, ...]) -> None:
    net = Builder(0)
    net.conv(4)
    net.head()
    contract = contract_of((0.4,) * 3, std)
    model, gray, changed = after(net.model(contract), contract, ["gray-stem"])
    assert changed == {"gray-stem": 1}
    assert (gray.input.channels, gray.input.mean, gray.input.std) == ("gray", (0.4,), std[:1])
    assert model.graph.input[0].type.tensor_type.shape.dim[1].dim_value == 1


@pytest.mark.parametrize(("pad", "places"), [(0, 1), (1, 0)])
def test_gray_stem_puts_different_means_into_the_bias_only_without_padding(pad: int, places: int) -> None:
    net = Builder(0)
    net.conv(4, pad=pad)
    net.head()
    contract = contract_of((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    assert after(net.model(contract), contract, ["gray-stem"])[2] == {"gray-stem": places}


def test_gray_stem_leaves_colour_alone() -> None:
    net = Builder(0)
    net.conv(4)
    net.head()
    contract = contract_of(gray=False)
    _, same, changed = after(net.model(contract), contract, ["gray-stem"])
    assert (same, changed) == (contract, {"gray-stem": 0})


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("size_px", [14, 15])
def test_merge_pool_makes_a_convolution_of_four_with_steps_of_two(groups: int, size_px: int) -> None:
    net = dense_net(2, groups=groups)
    net.pool("AveragePool")
    net.head()
    contract = contract_of(size_px=size_px)
    model, _, changed = after(net.model(contract), contract, ["merge-pool"])
    assert changed == {"merge-pool": 1}
    shapes = {tuple(tensor.dims)[2:] for tensor in model.graph.initializer if len(tensor.dims) == 4}
    assert (4, 4) in shapes


def _pool_of_relu(net: Builder) -> None:
    net.conv(4)
    net.relu()
    net.pool("AveragePool")


def _pool_with_padding(net: Builder) -> None:
    net.conv(4)
    net.pool("AveragePool", pad=1)


def _pool_where_it_does_not_pay(net: Builder) -> None:
    net.conv(4, size=1, pad=0)
    net.pool("AveragePool")


def _convolution_read_twice(net: Builder) -> None:
    conv = net.conv(4)
    pooled = net.pool("AveragePool")
    net.node("GlobalAveragePool", [conv])
    net.node("Add", [pooled, net.value])


@pytest.mark.parametrize(
    "layers", [_pool_of_relu, _pool_with_padding, _pool_where_it_does_not_pay, _convolution_read_twice]
)
def test_merge_pool_leaves_alone_what_it_may_not_touch(layers: Callable[[Builder], None]) -> None:
    net = Builder(0)
    layers(net)
    net.head()
    contract = contract_of()
    assert after(net.model(contract), contract, ["merge-pool"])[2] == {"merge-pool": 0}


def test_concat_free_reads_each_part_once() -> None:
    net = dense_net(4)
    net.head()
    contract = contract_of()
    before = net.model(contract)
    model, _, changed = after(before, contract, ["concat-free"])
    assert changed == {"concat-free": 1}
    assert kinds(model)["Concat"] == 1
    assert graph_cost(model).macs == graph_cost(before).macs


def _norm_of_a_convolution(net: Builder) -> None:
    net.conv(4)
    net.norm()


def _norm_of_the_input(net: Builder) -> None:
    net.norm()


def _norm_of_a_convolution_read_twice(net: Builder) -> None:
    conv = net.conv(4)
    normalised = net.norm()
    net.node("Add", [conv, normalised])


@pytest.mark.parametrize(
    ("layers", "left"),
    [(_norm_of_a_convolution, 0), (_norm_of_the_input, 1), (_norm_of_a_convolution_read_twice, 1)],
)
def test_batchnorm_is_folded_into_a_convolution_that_nothing_else_reads(
    layers: Callable[[Builder], None], left: int
) -> None:
    net = Builder(0)
    layers(net)
    net.head()
    contract = contract_of()
    assert kinds(after(net.model(contract), contract, [])[0])["BatchNormalization"] == left


def test_class_vectors_and_scale_are_one_matrix() -> None:
    net = Builder(0)
    net.conv(4)
    net.head()
    net.nodes[-1].output[0] = "embedding"
    net.tensors.append(onnx.numpy_helper.from_array(np.array(100, np.float32), "scale"))
    net.node("Mul", ["scale", net.weight(3, 3)])
    net.node("Transpose", [net.value], perm=[1, 0])
    net.node("MatMul", ["embedding", net.value])
    net.nodes[-1].output[0] = "logits"
    contract = contract_of()
    assert not {"Transpose", "Mul"} & set(kinds(after(net.model(contract), contract, [])[0]))


@settings(max_examples=examples(40))
@given(random_nets(), st.sets(st.sampled_from(sorted(REWRITES))))
def test_random_nets_answer_the_same_after_any_rewrites(made: tuple[Builder, Contract], names: set[str]) -> None:
    net, contract = made
    after(net.model(contract), contract, names)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["x86", "a53"])
def test_a_target_changes_the_shipped_net_everywhere_it_can(target: str, tmp_path: Path) -> None:
    from edgekit.model_store import resolve_model

    default = resolve_model("default", (".safetensors",))
    exported = export_checkpoint(default, tmp_path / "model.onnx", passes=chosen_passes(target))
    expected = {"x86": {}, "a53": {"concat-free": 1}}[target]
    always = {"gray-stem": 1, "merge-pool": 2}
    assert exported.changed == always | expected
    assert Classifier(exported.path).contract.input.channels == "gray"


@pytest.mark.slow
def test_the_same_checkpoint_and_target_give_the_same_bytes_in_another_process(
    checkpoint: Path, tmp_path: Path
) -> None:
    exported = export_checkpoint(checkpoint, tmp_path / "one.onnx", passes=chosen_passes("a53"))
    code = "import sys, edgekit; edgekit.export(sys.argv[1], 'two.onnx', target='a53')"
    environment = {**os.environ, "PYTHONHASHSEED": "4711"}
    subprocess.run([sys.executable, "-c", code, checkpoint], cwd=tmp_path, env=environment, check=True)
    assert sha256_of(tmp_path / "two.onnx") == exported.sha256
