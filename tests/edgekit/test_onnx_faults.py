"""The commands refuse damaged and hostile ONNX files with one line and limited memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from edgekit.errors import EXIT_TEMPORARY
from tests.edgekit import onnx_faults

ROOT = Path(__file__).parents[2]


def fuzz(folder: Path, first: int, count: int) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.edgekit.onnx_faults", folder, str(first), str(count)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        timeout=900,
    )
    at = folder / "at"
    assert done.returncode == 0, f"at {at.read_text() if at.exists() else 'the start'}: {done.stderr[-2000:]}"
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_every_command_refuses_damaged_files_with_one_line(tmp_path: Path) -> None:
    found = fuzz(tmp_path, 0, len(onnx_faults.CHANGES) + 6)
    assert found["faults"] == []
    assert isinstance(found["refused"], int)
    assert found["refused"] > 40


def test_a_small_file_that_needs_more_memory_than_there_is_is_refused(tmp_path: Path) -> None:
    model = onnx_faults.good_model()
    onnx_faults.let_grow(model, onnx_faults.MEMORY_BYTES // 3)
    path, picture = tmp_path / "grown.onnx", tmp_path / "picture.png"
    onnx.save(model, path)
    cv2.imwrite(str(picture), np.zeros((12, 12, 3), np.uint8))
    code = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({onnx_faults.MEMORY_BYTES},) * 2)"
    words = ["run", "--model", path, "--source", picture, "--detector", "none", "--threads", "1"]
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nfrom edgekit.cli import main; main()", *words], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (EXIT_TEMPORARY, "", 1), done.stderr
