"""`edgekit run` with a small ONNX file that needs more memory than there is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx

from edgekit.errors import EXIT_TEMPORARY
from tests.edgekit import onnx_faults

MEMORY_BYTES = 3 << 30


def test_a_small_file_that_needs_more_memory_than_there_is_is_one_line_and_temporary(tmp_path: Path) -> None:
    model = onnx_faults.good_model()
    onnx_faults.let_grow(model, MEMORY_BYTES // 3)
    path, picture = tmp_path / "grown.onnx", tmp_path / "picture.png"
    onnx.save(model, path)
    cv2.imwrite(str(picture), np.zeros((12, 12, 3), np.uint8))
    code = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({MEMORY_BYTES},) * 2)"
    words = ["run", "--model", path, "--source", picture, "--detector", "none", "--threads", "1"]
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nfrom edgekit.cli import main; main()", *words], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (EXIT_TEMPORARY, "", 1), done.stderr
