"""The commands with .ncnn files: export, inspect, verify, eval, bench together with ONNX files, run."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edgekit.cli.commands.export import command as export
from edgekit.device.engines.ncnn_engine import read_ncnn
from edgekit.models.checkpoint import load_checkpoint

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Path:
    """An .ncnn file with all rewrites that are available for ncnn."""
    target = checkpoint.with_name("model.ncnn")
    done = CliRunner().invoke(
        export, [str(checkpoint), "-o", str(target), "--engine", "ncnn", "--target", "a53", "--json"]
    )
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert (document["engine"], document["opset"]) == ("ncnn", None)
    assert document["size_bytes"] == target.stat().st_size
    assert set(document["rewrites"]) == {"gray-stem", "merge-pool", "concat-free"}
    assert document["contract"]["input"]["channels"] == "gray"
    assert document["verification"]["max_abs_difference"] < document["verification"]["tolerance"] == 1e-3
    return target


def test_a_file_in_half_floats_is_verified_with_its_own_tolerance(
    edgekit: Run, model: Path, checkpoint: Path, draw_faces: Callable[..., Path], tmp_path: Path
) -> None:
    target, data = tmp_path / "half.ncnn", draw_faces(tmp_path / "data", {"test": 14})
    engine = ("--engine", "ncnn", "--target", "a53", "--precision", "fp16")
    code, out, err = edgekit("export", checkpoint, "-o", target, *engine, "--json")
    assert code == 0, err
    assert json.loads(out)["contract"]["precision"] == "float16"
    assert err.count("half floats need fewer instructions on a Cortex-A76") == 1
    # The weights and the graph equal those of the float32 file.
    assert read_ncnn(target).weights == read_ncnn(model).weights
    assert read_ncnn(target).graph == read_ncnn(model).graph
    against = ("--against", checkpoint, "--data", data, "--split", "test")
    code, out, err = edgekit("verify", target, *against, "--json")
    assert code == 0, err
    assert json.loads(out)["logits"]["relative_tolerance"] == 0.03


def test_half_floats_are_chosen_by_the_processor(edgekit: Run, checkpoint: Path, tmp_path: Path) -> None:
    found = {}
    for target in ("a53", "a76"):
        words = ("--engine", "ncnn", "--target", target, "--precision", "auto", "--json")
        code, out, err = edgekit("export", checkpoint, "-o", tmp_path / f"{target}.ncnn", *words)
        assert code == 0, err
        found[target] = json.loads(out)["contract"]["precision"]
    assert found == {"a53": "float32", "a76": "float16"}


def with_other_weights(model: Path, target: Path, factor: float) -> Path:
    with zipfile.ZipFile(model) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "weights.bin":
                values = np.frombuffer(content, np.float32).copy()
                values[1:200] *= factor
                content = values.tobytes()
            new.writestr(name, content)
    return target


def test_verify_passes_a_good_file_and_refuses_another(
    edgekit: Run, model: Path, checkpoint: Path, draw_faces: Callable[..., Path], tmp_path: Path
) -> None:
    data = draw_faces(tmp_path / "data", {"test": 14})
    against = ("--against", checkpoint, "--data", data, "--split", "test")
    code, out, err = edgekit("verify", model, *against, "--json")
    assert code == 0, err
    document = json.loads(out)
    assert (document["engine"], document["logits"]["tolerance"]) == ("ncnn", 1e-3)
    assert document["top1"]["same"] == document["images"] == 14
    assert document["crops"]["different"] == 0

    code, _, err = edgekit("verify", with_other_weights(model, tmp_path / "x.ncnn", 1.5), *against)
    assert code == 3
    assert "logits differ by up to" in err
    assert len(err.splitlines()) == 1

    code, out, err = edgekit("eval", model, "--data", data, "--split", "test", "--json")
    assert code == 0, err
    assert json.loads(out)["total"] == 14


def test_inspect_shows_contract_and_layers(edgekit: Run, checkpoint: Path, model: Path) -> None:
    code, out, err = edgekit("inspect", model, "--json")
    assert code == 0, err
    document = json.loads(out)
    assert document["contract"]["labels"] == list(load_checkpoint(checkpoint).contract.labels)
    assert document["layers"][0] == {"name": "in0", "kind": "Input"}
    assert document["weight_bytes"] > 1e6
    code, out, err = edgekit("inspect", model)
    assert (code, err) == (0, "")
    assert "engine        ncnn" in out
    assert "InnerProduct" in out


def test_run_classifies_with_it(edgekit: Run, model: Path) -> None:
    code, out, err = edgekit(
        "run", "--model", model, "--source", "demo", "--detector", "none", "--max-frames", 3, "--json"
    )
    assert code == 0, err
    document = json.loads(out)
    assert document["faces"] == 3
    assert "ncnn" in document["versions"]
