"""The ncnn engine: results equal to ONNX Runtime, and refused files that crash ncnn."""

from __future__ import annotations

import struct
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.contract import Contract, CropSpec, InputSpec, OutputSpec
from edgekit.device.engines.classifier import Classifier
from edgekit.device.engines.engine import contract_in, engine_of, open_engine
from edgekit.device.engines.ncnn_engine import MEMBERS, NcnnEngine, pack_ncnn, read_ncnn
from edgekit.errors import InputError

GRAPH = """7767517
3 3
Input in0 0 1 in0
Pooling mean 1 1 in0 1 0=1 4=1
InnerProduct head 1 1 1 out0 0=3 1=1 2=9
"""
# 9 x 9 pixels are no multiple of the 16 bytes to which ncnn aligns each channel.
CONTRACT = Contract(
    architecture="small",
    labels=("a", "b", "c"),
    input=InputSpec("in0", (9, 9), "rgb", 1.0, (0.0,) * 3, (1.0,) * 3),
    crop=CropSpec(0.0, False, (9, 9), (9, 9)),
    output=OutputSpec("out0"),
)
MATRIX, BIAS = (np.random.default_rng(0).normal(size=size).astype(np.float32) for size in ((3, 3), 3))
WEIGHTS = struct.pack("<I", 0) + MATRIX.tobytes() + BIAS.tobytes()


def write(path: Path, contract: str = CONTRACT.to_json(), graph: str = GRAPH, weights: bytes = WEIGHTS) -> Path:
    """Write a file without any check."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, member in zip(MEMBERS, (contract, graph, weights), strict=True):
            archive.writestr(name, member)
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "small.ncnn"
    path.write_bytes(pack_ncnn(CONTRACT, GRAPH, WEIGHTS))
    return path


@pytest.mark.parametrize("count", [0, 1, 3])
def test_both_engines_answer_the_same(tiny_model: Path, tiny_ncnn: Path, count: int) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), np.uint8)
    logits = Classifier(tiny_ncnn, 1).logits(crops)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, Classifier(tiny_model, 1).logits(crops), atol=1e-6)
    assert (engine_of(tiny_model), engine_of(tiny_ncnn)) == ("onnxruntime", "ncnn")
    assert contract_in(tiny_ncnn).labels == contract_in(tiny_model).labels


def test_rows_that_fill_no_vector_are_read_right_by_several_threads_too(small: Path) -> None:
    images = np.random.default_rng(2).normal(size=(64, 1, 3, 9, 9)).astype(np.float32)
    expected = images.mean(axis=(1, 3, 4)) @ MATRIX.T + BIAS
    net = open_engine(small, 2)
    with ThreadPoolExecutor(8) as pool:
        together = np.concatenate(list(pool.map(net.infer, [*images] * 4)))
    np.testing.assert_allclose(together, np.tile(expected, (4, 1)), atol=1e-5)


def test_without_ncnn_a_file_is_refused_but_its_contract_is_read(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ncnn", None)
    with pytest.raises(InputError):
        open_engine(small, 1)
    assert contract_in(small).architecture == "small"


def test_a_file_cut_off_or_changed_anywhere_is_refused(small: Path, tiny_model: Path, tmp_path: Path) -> None:
    whole = small.read_bytes()
    starts = [whole.index(member) for member in (b'{"architecture', b"7767517", WEIGHTS)]
    size = len(WEIGHTS).to_bytes(4, "little")
    path = tmp_path / "x.ncnn"
    for content in (
        *(whole[:length] for length in range(0, len(whole), 97)),
        *(whole[:at] + bytes([whole[at] ^ 0x15]) + whole[at + 1 :] for start in starts for at in (start, start + 40)),
        whole.replace(size * 2, (0x3FFFFFFF).to_bytes(4, "little") * 2),
        tiny_model.read_bytes(),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError):
            read_ncnn(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"graph": GRAPH.replace("7767517", "7767518")},
        {"graph": GRAPH.replace("1 out0 0=3", "1 out1 0=3")},
        {"weights": WEIGHTS[:20]},
        {"contract": "{}"},
        {"contract": replace(CONTRACT, precision="int8").to_json()},
    ],
)
def test_what_ncnn_cannot_run_is_refused_at_load(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        open_engine(write(tmp_path / "x.ncnn", **changes), 1)
    assert "\n" not in str(caught.value)


def test_half_floats_are_used_only_in_files_for_them(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ncnn = pytest.importorskip("ncnn")
    new_net, nets = ncnn.Net, []
    monkeypatch.setattr(ncnn, "Net", lambda: nets.append(new_net()) or nets[-1])
    half = write(tmp_path / "half.ncnn", replace(CONTRACT, precision="float16").to_json())
    for path in (small, half):
        NcnnEngine(path, 1)
    settings = [(net.opt.use_fp16_storage, net.opt.use_fp16_arithmetic, net.opt.use_bf16_storage) for net in nets]
    assert settings == [(False, False, False), (True, True, False)]
