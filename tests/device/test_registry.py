"""Registrations of other packages: the example of docs/how-to/extending.md, and invalid registrations."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import edgekit
from edgekit.cli import run as run_command_line
from edgekit.device import registry
from edgekit.device.engines.engine import contract_in, engine_of, open_engine
from edgekit.errors import EXIT_OK, InputError

ROOT = Path(__file__).parents[2]


def install(site: Path, name: str, points: dict[str, str], code: str) -> None:
    """Install a package like pip: write its module and its metadata."""
    (site / f"{name}.py").write_text(code)
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("".join(f"[{group}]\n{entry}\n" for group, entry in points.items()))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    return folder


def test_the_example_of_the_documentation_runs_as_it_stands(tmp_path, tiny_model, site):
    page = (ROOT / "docs/how-to/extending.md").read_text()
    blocks = re.findall(r"```(toml|python|)\n(.*?)```", page, re.DOTALL)
    project, code, commands = (text for _, text in blocks[:3])
    package = tmp_path / "package"
    package.mkdir()
    (package / "pyproject.toml").write_text(project)
    (package / "edgekit_example.py").write_text(code)
    # Build and install the wheel like pip, without the start of pip.
    build = "from setuptools.build_meta import build_wheel; build_wheel('.')"
    done = subprocess.run([sys.executable, "-c", build], cwd=package, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = package.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)
    (command,) = [line for line in commands.splitlines() if line.startswith("edgekit ")]
    words = [sys.executable, "-m", "edgekit.cli", *command.split()[1:], "--model", str(tiny_model)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *filter(None, sys.path)])}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == EXIT_OK, done.stderr
    assert (tmp_path / "faces.txt").read_text() == "12 faces\n"
    assert "source stripes:12, detector bright" in done.stdout
    options = {"detector": "bright", "tracker": "still", "detect_every": 4, "model": tiny_model}
    with edgekit.stream(source="stripes:12", **options) as results:
        left_px = [face.xyxy[0] for result in results for face in result.faces]
    assert left_px == [20] * 4 + [24] * 4 + [28] * 4


def test_edgekits_own_can_all_be_loaded_and_an_unknown_name_is_refused_with_them():
    for kind in ("engine", "source", "detector", "tracker"):
        for name in registry.own_names(kind):
            assert callable(registry.find(kind, name))
        with pytest.raises(InputError, match=registry.own_names(kind)[0]):
            registry.find(kind, "nobody")


def test_edgekits_own_win_over_a_package_of_the_same_name(site):
    install(site, "first", {"edgekit.detectors": "haar = first:create"}, "def create(options): ...\n")
    assert registry.find("detector", "haar").__module__ == "edgekit.device.detection"
    assert registry.names("detector").count("haar") == 1


ENGINE = """
from edgekit.device.engines.session import OnnxRuntimeEngine

class Other(OnnxRuntimeEngine):
    def __init__(self, path, intra_op_threads):
        super().__init__(path, intra_op_threads)
"""


def test_an_engine_of_another_package_runs_files_of_its_suffix(site, tmp_path, tiny_model, capsys, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(site))  # for the processes of the benchmark
    file = tmp_path / "tiny.other"
    shutil.copy(tiny_model, file)
    with pytest.raises(InputError):
        engine_of(file)
    install(site, "other_engine", {"edgekit.engines": "other = other_engine:Other\nonnx = other_engine:Other"}, ENGINE)
    assert (engine_of(file), contract_in(file).architecture) == ("other", "mean")
    assert type(open_engine(tiny_model, 1)).__name__ == "OnnxRuntimeEngine"  # edgekit's own engines have precedence
    face = np.full((8, 8, 3), (0, 0, 255), np.uint8)
    assert edgekit.load_model(file).predict(face).labels == ("red",)
    if find_spec("torch") is not None:
        from edgekit.models.evaluation.evaluate import open_named

        assert open_named(file).contract.labels == ("red", "green", "blue")
    assert run_command_line(["run", "--source", "demo", "--detector", "none", "--model", str(file)]) == EXIT_OK
    (board,) = edgekit.benchmark(file, kinds=["net"], threads=[1], seconds=0.01, processes=1).boards
    assert board.cells[0].engine == "other"
    capsys.readouterr()
    assert run_command_line(["bench", str(file), "--host", "pi@127.0.0.1"]) == InputError.exit_code
    assert "ends in '.other': expected .onnx or .ncnn" in capsys.readouterr().err
