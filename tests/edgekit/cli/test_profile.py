"""`edgekit profile` from the command line, with edgekit's nets and with other ONNX files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.export.profiling.profile import profile_file
from edgekit.known_boards import KNOWN_BOARDS

Run = Callable[..., tuple[int, str, str]]


def document_of(edgekit: Run, *arguments: object) -> dict[str, object]:
    code, out, err = edgekit("profile", *arguments, "--json")
    assert code == 0, err
    document: dict[str, object] = json.loads(out)
    return document


def test_the_default_model_layer_by_layer(edgekit: Run) -> None:
    document = document_of(edgekit, "default", "--board", "pi3b+")
    assert document["macs"] == 48_827_432
    assert document["moved_bytes"] == 5_801_112
    assert document["precision"] == "fp32"
    layers = document["layers"]
    assert isinstance(layers, list)
    stem = next(layer for layer in layers if layer["name"] == "stem")
    assert stem["macs"] == 32 * 44 * 44 * 27
    assert stem["weight_bytes"] == 4 * (32 * 27 + 32)
    estimates = document["estimates"]
    assert isinstance(estimates, list)
    assert [(entry["board"], entry["threads"]) for entry in estimates] == [("pi3b+", 1), ("pi3b+", 4)]
    assert all(entry["high_ms"] == pytest.approx(3 * entry["low_ms"]) for entry in estimates)


def test_a_dynamic_size_is_refused(edgekit: Run, yunet: Path) -> None:
    code, _, err = edgekit("profile", yunet)
    assert code == 2
    assert "export it with a fixed size" in err


def test_the_whole_loop(edgekit: Run, yunet: Path) -> None:
    document = document_of(edgekit, "default", "--board", "pi3b+", "--pipeline", "--detector", yunet)
    loops = document["pipeline"]
    assert isinstance(loops, list)
    assert [loop["threads"] for loop in loops] == [1, 4]
    for loop in loops:
        assert loop["high_fps"] == pytest.approx(3 * loop["low_fps"])
        assert loop["middle_ms"] == pytest.approx(sum(part["middle_ms"] for part in loop["parts"]))
        assert loop["detector_wh"] == [320, 256]
    alone = profile_file(yunet, (320, 256)).on(KNOWN_BOARDS["pi3b+"], 1).estimate
    assert alone is not None
    parts = {part["name"]: part["middle_ms"] for part in loops[0]["parts"]}
    assert parts["detector net, 1 of 5 frames"] == pytest.approx(alone.middle_ms / 5)
    # The staged frame rate exists for one thread per stage only: four threads already use all processors.
    assert loops[0]["staged_low_fps"] > loops[0]["low_fps"]
    assert loops[1]["staged_low_fps"] is None


def test_the_loop_of_a_detector_with_a_fixed_input_size_is_estimated_at_that_size(
    edgekit: Run, yunet_640: Path
) -> None:
    arguments = ("--board", "pi3b+", "--pipeline", "--detector", yunet_640)
    loops = document_of(edgekit, "default", *arguments)["pipeline"]
    assert isinstance(loops, list)
    assert [loop["detector_wh"] for loop in loops] == [[640, 640]] * 2
