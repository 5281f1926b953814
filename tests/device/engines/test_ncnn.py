"""The second engine: the same answers, also to several at once, and files that would kill ncnn are refused before."""

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
    # 9 x 9 pixels are no multiple of the 16 bytes at which ncnn begins a channel.
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
def test_so_many_threads_as_asked_for(small: Path, threads: int) -> None:
    done = python("-c", _THREADS, small, threads, OMP_NUM_THREADS="7", OPENBLAS_NUM_THREADS="1")
    assert done.stdout.split() == [str(threads - 1)], done.stderr


def test_idle_threads_sleep_and_the_environment_stays_as_it_was(small: Path) -> None:
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
    with pytest.raises(InputError, match=r"runs on ncnn, which is not installed: pip install 'edgekit\[ncnn\]'"):
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
        refused(path, "damaged, or no ncnn file")
    starts = [whole.index(member) for member in (b'{"architecture', b"7767517", ncnn_nets.weights())]
    for position in (*starts, *(start + 40 for start in starts)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x15]) + whole[position + 1 :])
        refused(path, "damaged, or no ncnn file")


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
    refused(path, "is compressed: expected it as it is")


def test_a_size_that_is_a_lie_is_refused(small: Path, tmp_path: Path) -> None:
    whole = small.read_bytes()
    size = len(ncnn_nets.weights()).to_bytes(4, "little")
    path = tmp_path / "x.ncnn"
    path.write_bytes(whole.replace(size * 2, (0x3FFFFFFF).to_bytes(4, "little") * 2))
    refused(path, r"'weights.bin' claims 1073741823 bytes, too many for \d+ in all")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("7767517", "7767518", "its graph is not ncnn's"),
        ("14 17", "14", "does not say how long it is"),
        ("14 17", "15 17", "has 14 layers and says 15"),
        ("14 17", "14 99999999", "has 17 tensors and says 99999999"),
        ("Input in0 0 1 in0", "Input in0 0 1 in0 0=4096 1=4096", "it is not the contract's size"),
        ("Convolution stem 1 1 in0 1 0=8", "Convolution stem 1 1 in0 1 0=1048576", "has 72 weights"),
        (
            "0=8 1=3 11=3 4=1 14=1 5=1 6=72 7=8",
            "0=8 1=3 11=3 4=2 14=1 5=1 6=72 7=8",
            r"'cat' \(Concat\): .* do not fit",
        ),
        ("6=72 9=1", "6=999999999 9=1", "999999999 weights: its sizes ask for 72"),
        ("6=72 9=1", "6=72 8=1 9=1", "setting 8 is unknown here"),
        ("6=72 9=1", "6=nan 9=1", "'6=nan' is no setting"),
        ("6=72 7=8", "6=72 7=3", "3 groups do not divide 8 and 8"),
        ("Concat cat 2 1 3 5 6", "Concat cat 2 1 3 3 6", "read before it is made, or made or read twice"),
        ("Reshape flat 1 1 14 15 0=128", "Reshape flat 1 1 14 15 0=129", "setting 0 is 129"),
        ("-23300=2,-233,-233", "-23300=2,16,0", "do not cut"),
        ("-23300=2,-233,-233", "-23300=9,-233", "is no setting"),
        ("-23303=2,1,2", "-23303=2,1,7", "axes"),
        ("BinaryOp add 2 1 7 8 9", "Crop add 2 1 7 8 9", "edgekit knows no such layer"),
        ("15 out0 0=3 1=1 2=384", "15 out1 0=3 1=1 2=384", "its graph gives out1: expected 'out0' alone"),
        ("15 out0 0=3 1=1 2=384", "15 out0 0=4 1=1 2=512", "its contract has 3 labels"),
        ("15 out0 0=3 1=1 2=384", "15 out0 0=3 2=384", "bytes of weights, its graph asks for"),
    ],
)
def test_a_graph_that_does_not_fit_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in ncnn_nets.GRAPH
    refused(ncnn_nets.write(tmp_path / "x.ncnn", graph=ncnn_nets.GRAPH.replace(old, new)), message)


def test_results_that_take_gigabytes_are_refused(tmp_path: Path) -> None:
    spec = replace(ncnn_nets.CONTRACT.input, size_hw=(1024, 1024))
    crop = replace(ncnn_nets.CONTRACT.crop, resize_hw=(1024, 1024), center_crop_hw=(1024, 1024))
    contract = replace(ncnn_nets.CONTRACT, input=spec, crop=crop).to_json()
    grown = ncnn_nets.GRAPH.replace("0=8 1=3 11=3 4=1 14=1 5=1 6=72 9=1", "0=4096 1=1 11=1 5=1 6=4096 9=1")
    refused(ncnn_nets.write(tmp_path / "x.ncnn", contract, grown), r"'stem' \(Convolution\): results of more than")


@pytest.mark.parametrize(
    ("contract", "message"),
    [
        ("{}", "contract field 'schema' is missing"),
        ("none", "the contract is not JSON"),
        (replace(ncnn_nets.CONTRACT, precision="int8").to_json(), "int8 weights: ncnn's are float32"),
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


def test_weights_of_another_kind_are_refused(tmp_path: Path) -> None:
    half = b"\x47\x6b\x30\x01" + ncnn_nets.weights()[4:]
    refused(
        ncnn_nets.write(tmp_path / "x.ncnn", content=half), "weights of its layer 'stem' are missing or not float32"
    )


def test_other_files_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.ncnn"
    path.write_bytes(tiny_model.read_bytes())
    refused(path, "damaged, or no ncnn file")
    with pytest.raises(InputError, match=r"ends in '\.bin': expected \.onnx or \.ncnn"):
        open_engine(path.with_suffix(".bin"), 1)
    with pytest.raises(InputError, match="does not exist"):
        read_ncnn(tmp_path / "none.ncnn")


def test_no_changed_graph_takes_the_process_with_it(tmp_path: Path) -> None:
    done = python("-m", "tests.device.ncnn_nets", tmp_path, 800)
    assert done.returncode == 0, done.stdout[-200:] + done.stderr[-2000:]
    assert int(done.stdout.split("accepted")[1]) > 10
    assert done.stderr == ""  # ncnn itself says what it does not like
