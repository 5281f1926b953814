"""`edgekit bench MODEL --formats` from the command line, with an untrained net and a generated data set."""

from __future__ import annotations

import json
import shlex
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.export.formats import FORMATS, this_machines_target
from edgekit.report.document import read_document

Run = Callable[..., tuple[int, str, str]]
QUICK = ("--seconds", 0.01, "--threads", 1, "--processes", 1, "--cool-down", 0)


@pytest.fixture(scope="module")
def data(draw_faces: Callable[[Path, dict[str, int]], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_faces(tmp_path_factory.mktemp("data") / "faces", {"Training": 7, "PrivateTest": 14})


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files of this process and its children."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


@pytest.mark.slow
def test_all_formats_in_one_table_of_eighty_columns(
    edgekit: Run, checkpoint: Path, data: Path, temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    report = tmp_path / "report.json"
    code, out, err = edgekit("bench", checkpoint, "--formats", "all", "--data", data, *QUICK, "-o", report)
    assert code == 0, err
    lines = out.splitlines()
    rows = {line.split()[0]: line.split() for line in lines if line.strip() and line.split()[0] in FORMATS}
    assert list(rows) == list(FORMATS)
    assert all(len(line) <= 80 for line in lines if line.split() and line.split()[0] in (*FORMATS, "format"))
    assert sum("*" in row for row in rows.values()) == 1
    (advice,) = [line for line in lines if line.startswith("recommended: ")]
    best = advice.split()[1]
    assert "*" in rows[best]
    (command,) = [line for line in lines if line.startswith("  edgekit export ")]
    assert f"--target {this_machines_target()}" in command
    assert "±" in out
    (board,) = read_document(report).boards
    assert [model.name for model in board.models] == list(FORMATS)
    assert {cell.engine for cell in board.cells} == {"onnxruntime", "ncnn"}
    assert list(temporary.glob("edgekit-*")) == []


@pytest.mark.slow
def test_some_formats_as_json(edgekit: Run, checkpoint: Path, data: Path) -> None:
    given = ("--formats", "int8", "--data", data, "--target", "a53", "--json")
    code, out, err = edgekit("bench", checkpoint, *QUICK, *given)
    assert code == 0, err
    document = json.loads(out)
    assert (document["schema"], document["target"], document["split"]) == ("edgekit.formats/1.0", "a53", "PrivateTest")
    float32, int8 = document["formats"]
    assert (float32["format"], int8["format"], float32["total"]) == ("float32", "int8", 14)
    assert float32["accuracy_interval"][0] <= float32["accuracy"] <= float32["accuracy_interval"][1]
    assert int8["size_bytes"] < float32["size_bytes"] / 2
    assert len(document["recommended"]) == 1
    assert document["benchmark"]["boards"][0]["cells"][0]["kind"] == "net"
    assert document["left_out"] == {}


@pytest.mark.slow
def test_a_format_that_cannot_be_made_is_left_out_with_the_reason(
    edgekit: Run, checkpoint: Path, data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    net = Path(shutil.copy(checkpoint, tmp_path / "my net.safetensors"))
    code, out, err = edgekit("bench", net, *QUICK, "--formats", "ncnn", "--data", data)
    assert code == 0, err
    assert "ncnn: left out: export to ncnn needs pnnx, which is not installed" in out
    assert "recommended: float32 with --threads 1" in out
    (command,) = [line for line in out.splitlines() if line.startswith("  edgekit export ")]
    assert shlex.split(command)[2] == str(net)
