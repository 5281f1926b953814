"""The ncnn engine: results equal to ONNX Runtime, and refused files that crash ncnn."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgekit.contract import InputSpec
from edgekit.device.engines.classifier import Classifier
from edgekit.device.engines.engine import contract_in, engine_of, open_engine
from edgekit.device.engines.ncnn_engine import NcnnEngine
from edgekit.device.engines.ncnn_file import MEMBERS, pack_ncnn, read_ncnn
from edgekit.errors import InputError
from tests.device import ncnn_nets

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ncnn_nets.good(tmp_path_factory.mktemp("small") / "small.ncnn")


def python(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("count", [0, 1, 3])
def test_both_engines_answer_the_same(tiny_model: Path, tiny_ncnn: Path, count: int) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), np.uint8)
    logits = Classifier(tiny_ncnn, 1).logits(crops)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, Classifier(tiny_model, 1).logits(crops), atol=1e-6)
    assert (engine_of(tiny_model), engine_of(tiny_ncnn)) == ("onnxruntime", "ncnn")
    assert contract_in(tiny_ncnn).labels == contract_in(tiny_model).labels


def test_rows_that_fill_no_vector_are_read_right(small: Path) -> None:
    # ncnn aligns each channel to 16 bytes; 9 x 9 pixels are no multiple of 16 bytes.
    from onnx import TensorProto, helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    names = ("w1", "b1", "w2", "b2", "w3", "b3")
    shapes = ((8, 1, 3, 3), (8,), (8, 1, 3, 3), (8,), (3, 128), (3,))
    tensors = [
        numpy_helper.from_array(values.reshape(shape), name)
        for name, shape, values in zip(names, shapes, ncnn_nets.arrays(), strict=True)
    ]
    shuffled = np.arange(8).reshape(2, 4).T.ravel()
    tensors += [
        numpy_helper.from_array(np.array(value), name)
        for name, value in (
            ("six", np.float32(6)),
            ("zero", np.float32(0)),
            ("order", shuffled),
            ("flat", np.array([1, 128])),
            ("axes", np.array([2, 3])),
        )
    ]
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c"], pads=[1] * 4),
        node("Relu", ["c"], ["1"]),
        node("Conv", ["1", "w2", "b2"], ["d"], pads=[1] * 4, group=8),
        node("Clip", ["d", "zero", "six"], ["4"]),
        node("Gather", ["4", "order"], ["5"], axis=1),
        node("Concat", ["1", "5"], ["6"], axis=1),
        node("Split", ["6"], ["7", "8"], axis=1, num_outputs=2),
        node("Add", ["7", "8"], ["9"]),
        node("MaxPool", ["9"], ["10"], kernel_shape=[2, 2], strides=[2, 2]),
        node("ReduceMean", ["10", "axes"], ["13"]),
        node("Mul", ["10", "13"], ["14"]),
        node("Reshape", ["14", "flat"], ["15"]),
        node("Gemm", ["15", "w3", "b3"], ["y"], transB=1),
    ]
    side = ncnn_nets.SIDE_PX
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, side, side])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        tensors,
    )
    reference = ReferenceEvaluator(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))
    images = np.random.default_rng(2).normal(size=(4, 1, side, side)).astype(np.float32)
    expected = np.concatenate([reference.run(None, {"x": image[np.newaxis]})[0] for image in images])
    np.testing.assert_allclose(NcnnEngine(small, 1).infer(images), expected, atol=1e-5)


def test_several_threads_do_not_disturb_each_other(small: Path) -> None:
    net = open_engine(small, 2)
    images = np.random.default_rng(3).normal(size=(64, 1, 1, 9, 9)).astype(np.float32)
    alone = [net.infer(image) for image in images]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(net.infer, [*images] * 4))
    for index, answer in enumerate(together):
        np.testing.assert_array_equal(answer, alone[index % 64])


_THREADS = """
import sys
from pathlib import Path
import numpy as np
from edgekit.device.engines.ncnn_engine import NcnnEngine
def threads():
    return len(list(Path("/proc/self/task").iterdir()))
before = threads()
net = NcnnEngine(Path(sys.argv[1]), int(sys.argv[2]))
net.infer(np.zeros((1, 1, 9, 9), np.float32))
print(threads() - before)
"""


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads_is_the_requested_one(small: Path, threads: int) -> None:
    done = python("-c", _THREADS, small, threads, OMP_NUM_THREADS="7", OPENBLAS_NUM_THREADS="1")
    assert done.stdout.split() == [str(threads - 1)], done.stderr


def test_idle_threads_sleep_and_the_environment_stays_as_it_was(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)  # set by `edgekit.models`, if another test imported it
    code = """
import os, sys
from pathlib import Path
seen = []
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "ncnn":
            seen.append(os.environ.get("OMP_WAIT_POLICY"))
sys.meta_path.insert(0, Watch())
from edgekit.device.engines.ncnn_engine import NcnnEngine
NcnnEngine(Path(sys.argv[1]), 1)
print(seen, os.environ.get("OMP_WAIT_POLICY"))
"""
    assert python("-c", code, small).stdout == "['PASSIVE'] None\n"
    assert python("-c", code, small, OMP_WAIT_POLICY="ACTIVE").stdout == "['ACTIVE'] ACTIVE\n"


def test_without_ncnn_the_extra_is_named(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ncnn", None)
    with pytest.raises(InputError, match=r"runs on ncnn, which is not installed: pip install .*\[ncnn\]"):
        open_engine(small, 1)
    assert contract_in(small).architecture == "small"


def test_the_same_three_make_the_same_bytes_that_unzip_reads(small: Path) -> None:
    assert pack_ncnn(ncnn_nets.CONTRACT, ncnn_nets.GRAPH, ncnn_nets.weights()) == small.read_bytes()
    with zipfile.ZipFile(small) as archive:
        assert archive.testzip() is None
        assert archive.read("weights.bin") == ncnn_nets.weights()
    assert read_ncnn(small).contract == ncnn_nets.CONTRACT


def refused(path: Path, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_ncnn(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_cut_off_or_changed_anywhere_is_refused(small: Path, tmp_path: Path) -> None:
    whole = small.read_bytes()
    path = tmp_path / "x.ncnn"
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        refused(path, "damaged, or not a .ncnn file")
    starts = [whole.index(member) for member in (b'{"architecture', b"7767517", ncnn_nets.weights())]
    for position in (*starts, *(start + 40 for start in starts)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x15]) + whole[position + 1 :])
        refused(path, "damaged, or not a .ncnn file")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("../contract.json", "graph.param", "weights.bin"), "expected contract.json, graph.param, weights.bin"),
        (("/etc/passwd", "graph.param", "weights.bin"), "it holds /etc/passwd"),
        (("contract.json", "graph.param"), "expected contract.json"),
        (("contract.json", "graph.param", "weights.bin", "more"), "expected contract.json"),
        (("contract.json", "contract.json", "graph.param", "weights.bin"), "expected contract.json"),
        (("graph.param", "contract.json", "weights.bin"), "expected contract.json"),
        ((), "it holds nothing"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_other_members_are_refused(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    path = tmp_path / "x.ncnn"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    refused(path, message)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "x.ncnn"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in MEMBERS:
            archive.writestr(name, b"\0" * (1 << 20))
    refused(path, "is compressed: expected it uncompressed")


def test_a_size_that_is_a_lie_is_refused(small: Path, tmp_path: Path) -> None:
    whole = small.read_bytes()
    size = len(ncnn_nets.weights()).to_bytes(4, "little")
    path = tmp_path / "x.ncnn"
    path.write_bytes(whole.replace(size * 2, (0x3FFFFFFF).to_bytes(4, "little") * 2))
    refused(path, r"'weights.bin' claims 1073741823 bytes, too many for \d+ in all")


def test_a_text_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    path = ncnn_nets.write(tmp_path / "x.ncnn", graph=ncnn_nets.GRAPH.replace("7767517", "7767518"))
    refused(path, "its graph is not a .param file of ncnn")


def test_layers_are_listed_with_their_kinds(small: Path) -> None:
    layers = read_ncnn(small).layers()
    assert layers[:4] == [("in0", "Input"), ("stem", "Convolution"), ("split", "Split"), ("dw", "ConvolutionDepthWise")]
    assert len(layers) == 14


@pytest.mark.parametrize(
    ("graph", "content"),
    [
        (ncnn_nets.GRAPH.replace("Pooling max", "Levitation max"), None),
        (None, ncnn_nets.weights()[:100]),
        (ncnn_nets.GRAPH.replace("15 out0 0=3", "15 out1 0=3"), None),
        (ncnn_nets.GRAPH.replace("InnerProduct head 1 1 15 out0 0=3 1=1 2=384", "ReLU head 1 1 15 out0"), None),
    ],
)
def test_what_ncnn_cannot_run_is_refused_at_load(tmp_path: Path, graph: str | None, content: bytes | None) -> None:
    path = ncnn_nets.write(tmp_path / "x.ncnn", graph=graph, content=content)
    with pytest.raises(InputError) as caught:
        open_engine(path, 1)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("contract", "message"),
    [
        ("{}", "contract field 'schema' is missing"),
        ("none", "the contract is not JSON"),
        (replace(ncnn_nets.CONTRACT, precision="int8").to_json(), "precision int8: ncnn needs float32"),
        (
            replace(ncnn_nets.CONTRACT, input=replace(ncnn_nets.CONTRACT.input, element_type="uint8")).to_json(),
            "uint8 pixels",
        ),
        (
            replace(ncnn_nets.CONTRACT, input=InputSpec("x", (9, 9), "gray", 1.0, (0.0,), (1.0,))).to_json(),
            "its contract names the tensors 'x' and 'out0'",
        ),
    ],
)
def test_a_contract_that_does_not_fit_is_refused(tmp_path: Path, contract: str, message: str) -> None:
    refused(ncnn_nets.write(tmp_path / "x.ncnn", contract), message)


def in_half_floats(path: Path) -> Path:
    contract = replace(ncnn_nets.CONTRACT, precision="float16")
    path.write_bytes(pack_ncnn(contract, ncnn_nets.GRAPH, ncnn_nets.weights()))
    return path


def test_half_floats_are_used_only_in_files_for_them(small: Path, tmp_path: Path) -> None:
    for path, expected in ((small, False), (in_half_floats(tmp_path / "half.ncnn"), True)):
        options = NcnnEngine(path, 1)._net.opt
        assert (options.use_fp16_storage, options.use_fp16_arithmetic) == (expected, expected)
        assert not options.use_bf16_storage


def test_other_files_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.ncnn"
    path.write_bytes(tiny_model.read_bytes())
    refused(path, "damaged, or not a .ncnn file")
    with pytest.raises(InputError, match=r"ends in '\.bin': expected \.onnx or \.ncnn"):
        open_engine(path.with_suffix(".bin"), 1)
    with pytest.raises(InputError, match="does not exist"):
        read_ncnn(tmp_path / "none.ncnn")
