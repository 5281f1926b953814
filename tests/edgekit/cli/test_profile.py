"""`edgekit profile` from the command line, with edgekit's nets and with other ONNX files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.toy_yunet import MACS_PER_PX

Run = Callable[..., tuple[int, str, str]]


def document_of(edgekit: Run, *arguments: object) -> dict[str, object]:
    code, out, err = edgekit("profile", *arguments, "--json")
    assert code == 0, err
    document: dict[str, object] = json.loads(out)
    return document


def test_the_default_model_layer_by_layer(edgekit: Run) -> None:
    document = document_of(edgekit, "default", "--board", "pi3b+", "--seconds", "0.05")
    assert document["macs"] == 48_827_432
    assert document["moved_bytes"] == 5_801_112
    assert document["precision"] == "fp32"
    layers = document["layers"]
    assert isinstance(layers, list)
    stem = next(layer for layer in layers if layer["name"] == "stem")
    assert stem["macs"] == 32 * 44 * 44 * 27
    assert stem["weight_bytes"] == 4 * (32 * 27 + 32)
    assert stem["flops_per_byte"] == pytest.approx(2 * stem["macs"] / stem["moved_bytes"])
    measured = document["measured"]
    assert isinstance(measured, dict)
    shares = sum(layer["share"] or 0 for layer in layers)
    assert shares + measured["runtime_share"] == pytest.approx(1)
    # Convolutions take a large share of the time, which is assigned to the layers by their names in the file.
    assert sum(layer["share"] or 0 for layer in layers if layer["op_type"] == "Conv") > 0.4
    estimates = document["estimates"]
    assert isinstance(estimates, list)
    assert [(entry["board"], entry["threads"]) for entry in estimates] == [("pi3b+", 1), ("pi3b+", 4)]
    assert all(entry["high_ms"] == pytest.approx(3 * entry["low_ms"]) for entry in estimates)


def test_a_free_size_must_be_given(edgekit: Run, yunet: Path) -> None:
    code, _, err = edgekit("profile", yunet, "--seconds", "0")
    assert code == 2
    assert "give a size (--size WxH)" in err
    small = document_of(edgekit, yunet, "--size", "160x128", "--seconds", "0")
    large = document_of(edgekit, yunet, "--size", "320x256", "--seconds", "0")
    assert small["macs"] == MACS_PER_PX * 160 * 128
    assert large["macs"] == MACS_PER_PX * 320 * 256


def small_net(folder: Path, node: onnx.NodeProto) -> Path:
    weights = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "y")]
    graph = helper.make_graph([node], "net", shapes[:1], shapes[1:], [weights])
    path = folder / "small.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


def test_the_whole_loop(edgekit: Run, yunet: Path) -> None:
    arguments = ("default", "--board", "pi3b+", "--pipeline", "--detector", yunet, "--seconds", "0.05")
    five = document_of(edgekit, *arguments, "--detect-every", 5)["pipeline"]
    every = document_of(edgekit, *arguments, "--detect-every", 1)["pipeline"]
    assert isinstance(five, list)
    assert isinstance(every, list)
    assert [loop["threads"] for loop in five] == [1, 4]
    for rare, often in zip(five, every, strict=True):
        parts = {part["name"].partition(",")[0]: part["middle_ms"] for part in rare["parts"]}
        all_parts = {part["name"].partition(",")[0]: part["middle_ms"] for part in often["parts"]}
        assert all_parts["detector net"] == pytest.approx(5 * parts["detector net"])
        assert rare["high_fps"] == pytest.approx(3 * rare["low_fps"])
        assert rare["middle_ms"] == pytest.approx(sum(part["middle_ms"] for part in rare["parts"]))
        assert rare["detector_wh"] == [320, 256]
    # The staged frame rate exists for one thread per stage only: four threads already use all processors.
    assert five[0]["staged_low_fps"] > five[0]["low_fps"]
    assert five[1]["staged_low_fps"] is None


def test_a_face_that_is_classified_less_often_takes_less_time(edgekit: Run, yunet: Path) -> None:
    arguments = ("default", "--board", "pi3b+", "--pipeline", "--detector", yunet, "--seconds", "0")
    ((often, _), (rare, _)) = (
        document_of(edgekit, *arguments, "--classify-every", every)["pipeline"] for every in (1, 3)
    )
    (often_net, rare_net) = (loop["parts"][-1] for loop in (often, rare))
    assert rare_net["name"] == "classifier net, 1 of 3 frames"
    assert rare_net["middle_ms"] == pytest.approx(often_net["middle_ms"] / 3)


def test_the_loop_of_a_detector_with_a_fixed_input_size_is_estimated_at_that_size(
    edgekit: Run, yunet_640: Path
) -> None:
    arguments = ("--board", "pi3b+", "--pipeline", "--detector", yunet_640, "--seconds", "0.05")
    loops = document_of(edgekit, "default", *arguments)["pipeline"]
    assert isinstance(loops, list)
    assert [loop["detector_wh"] for loop in loops] == [[640, 640]] * 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["--size", "320"],
        ["--size", "320x240"],
        ["--board", "pi2"],
        ["--classify-every", "2"],
        ["--seconds", "nan"],
    ],
)
def test_bad_arguments_are_reported(edgekit: Run, arguments: list[str]) -> None:
    code, _, err = edgekit("profile", "default", *arguments)
    assert (code, len(err.splitlines())) == (2, 1)


def test_a_loop_without_its_files_is_refused_before_anything_is_measured(
    edgekit: Run, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(*_: object, **__: object) -> None:
        pytest.fail("it was measured first")

    from edgekit.export.profiling import run

    monkeypatch.setattr(run, "profile_file", measured)
    monkeypatch.setenv("EDGEKIT_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    plain = small_net(tmp_path, helper.make_node("Relu", ["x"], ["y"]))
    for arguments, message in (
        (("default",), "give YuNet's file"),
        (("default", "--detector", tmp_path / "none.onnx"), "none.onnx' does not exist"),
        (("default", "--detector", tiny_model), "give a face_detection_yunet .onnx file"),
        ((plain,), "has no edgekit contract"),
    ):
        code, out, err = edgekit("profile", *arguments, "--pipeline")
        assert (code, out) == (2, "")
        assert message in err
        assert len(err.splitlines()) == 1
