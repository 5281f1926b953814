"""What every command does alike: one line for an error, whatever happens to its streams and its files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest


def _edgekit(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgekit.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]


def test_a_usage_error_is_one_line_that_names_the_help() -> None:
    done = _edgekit("run", "--nope")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        line for line in done.stderr.splitlines() if "--nope" in line and "edgekit run --help" in line
    ]


@pytest.mark.parametrize("arguments", [["run", "--nope"], ["inspect", "absent.onnx"]])
def test_closed_and_full_streams_change_no_exit_code(arguments: list[str]) -> None:
    command = f"{sys.executable} -m edgekit.cli {' '.join(arguments)}"
    for redirection in (">&-", "2>&-", ">&- 2>&-", "2>/dev/full"):
        done = subprocess.run(["bash", "-c", f"{command} {redirection}"], capture_output=True, text=True, check=False)
        assert done.returncode == 2, redirection
        assert "Traceback" not in done.stderr


def test_what_a_terminal_cannot_show_is_escaped(tiny_model: Path, tmp_path: Path) -> None:
    document = onnx.load(tiny_model)
    document.graph.node[0].name = "Größe…"
    onnx.save(document, tmp_path / "model.onnx")
    for variables in ({"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}):
        done = _edgekit("inspect", tmp_path / "model.onnx", "--layers", env=os.environ | variables)
        assert done.returncode == 0, done.stderr
        assert "Gr\\xf6\\xdfe\\u2026" in done.stdout


@pytest.mark.parametrize("option", ["--jsonl", "--csv"])
@pytest.mark.parametrize("suffix", [".onnx", ".safetensors", ".png"])
def test_results_are_not_written_over_models_and_pictures(
    tiny_model: Path, tmp_path: Path, option: str, suffix: str
) -> None:
    target = tmp_path / f"precious{suffix}"
    target.write_bytes(b"precious")
    done = _edgekit("run", "--model", tiny_model, "--source", "demo", "--detector", "none", option, target)
    assert done.returncode == 2
    assert "would be overwritten" in done.stderr
    assert target.read_bytes() == b"precious"


def test_a_bench_report_is_not_written_over_its_model(tiny_model: Path) -> None:
    before = tiny_model.read_bytes()
    done = _edgekit("bench", tiny_model, "--no-pipeline", "--seconds", "0.01", "-o", tiny_model)
    assert (done.returncode, tiny_model.read_bytes() == before) == (2, True)


def test_a_node_that_fails_at_run_time_cannot_write_to_the_terminal(tiny_model: Path, tmp_path: Path) -> None:
    model = onnx.load(tiny_model)
    output = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["inner" if name == output else name for name in node.output]
    # The target shape is read from the data, so the graph loads and fails when it runs.
    hostile = "n\x1b]0;PWNED\x07\x1b[31m[/red]\nedgekit: all fine"
    nodes = [
        onnx.helper.make_node("Constant", [], ["shift"], value_float=12345.0),
        onnx.helper.make_node("Add", ["inner", "shift"], ["moved"]),
        onnx.helper.make_node("ReduceMax", ["moved"], ["largest"], keepdims=0),
        onnx.helper.make_node("Cast", ["largest"], ["count"], to=onnx.TensorProto.INT64),
        onnx.helper.make_node("Constant", [], ["one"], value_ints=[1]),
        onnx.helper.make_node("Reshape", ["count", "one"], ["shape"]),
        onnx.helper.make_node("Reshape", ["inner", "shape"], [output], name=hostile),
    ]
    model.graph.node.extend(nodes)
    path = tmp_path / "hostile.onnx"
    onnx.save(model, path)
    done = _edgekit("run", "--model", path, "--source", "demo", "--detector", "none", "--max-frames", "1")
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "\x1b" not in done.stderr + done.stdout


def test_an_output_that_is_its_input_is_refused(shared: Path, tmp_path: Path) -> None:
    source = shared / "reference/edgecnn/FER2013_EdgeCNN_PrivateTest_model.t7"
    copy = tmp_path / "authors.safetensors"
    copy.write_bytes(source.read_bytes())
    done = _edgekit("import", copy, "-o", copy)
    assert done.returncode == 2
    assert "the file to read" in done.stderr
    assert copy.read_bytes() == source.read_bytes()


def test_processes_counted_in_words_are_refused(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / "0.pgm").write_bytes(b"P5 48 48 255\n" + bytes(2304))
    done = _edgekit("train", "--data", tmp_path, "-o", tmp_path / "run", env={**os.environ, "WORLD_SIZE": "y"})
    assert done.returncode == 2
    assert "WORLD_SIZE" in done.stderr
