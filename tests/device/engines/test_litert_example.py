"""The example engine examples/edgekit-litert, from its wheel: conformance, a run, and refused files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "examples/edgekit-litert"
# The model of the fixture `tiny_model`, converted by edgekit_litert_convert.
TINY, TINY_UINT8 = (ROOT / f"tests/fixtures/models/{name}.tflite" for name in ("tiny", "tiny-uint8"))

pytest.importorskip("ai_edge_litert", reason="no LiteRT here: pip install ai-edge-litert")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which the package's wheel is unpacked."""
    folder = tmp_path_factory.mktemp("site")
    build = f"from setuptools.build_meta import build_wheel; build_wheel({str(folder)!r})"
    done = subprocess.run([sys.executable, "-c", build], cwd=PACKAGE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder)
    shutil.copy(ROOT / "examples/engine_conformance.py", folder)
    return folder


def python(site: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *filter(None, sys.path)])}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


CONFORMANCE = """
import sys
from pathlib import Path
from engine_conformance import CHECKS, Subject
for check in CHECKS:
    check(Subject("tflite", Path(sys.argv[1]), Path(sys.argv[2])))
"""


@pytest.mark.parametrize("model", [TINY, TINY_UINT8])
def test_it_conforms(site: Path, tiny_model: Path, model: Path) -> None:
    done = python(site, "-c", CONFORMANCE, model, tiny_model)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_command_line_takes_its_files(site: Path) -> None:
    done = python(site, "-m", "edgekit.cli", "run", "--source", "demo", "--detector", "none", "--model", TINY)
    assert done.returncode == 0, done.stderr
    assert "faces: 150 in 150 of 150 frames" in done.stdout
