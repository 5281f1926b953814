"""`edgekit profile` from the command line, with edgekit's nets and with other ONNX files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

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
