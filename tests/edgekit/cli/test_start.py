"""`edgekit run` imports only the modules that its first result needs."""

from __future__ import annotations

import subprocess
import sys

# Prints the imported modules and ends the process when the run opens the file of its results.
FIRST_RESULT = """
import os, sys
results, = sys.argv[1:2]
def stop(event, arguments):
    if event == "open" and arguments[0] == results:
        os.write(1, " ".join(sys.modules).encode())
        os._exit(0)
sys.addaudithook(stop)
sys.argv = ["edgekit", "run", *sys.argv[2:], "--jsonl", results]
from edgekit.cli import main
main()
"""
# Modules for other outputs, other sources, downloads, settings files or the summary.
NOT_NEEDED = {
    "av",
    "difflib",
    "http.client",
    "logging",
    "ncnn",
    "numpy.ma",
    "onnx",
    "paho",
    "picamera2",
    "rich",
    "ssl",
    "starlette",
    "tempfile",
    "tomllib",
    "torch",
    "uvicorn",
}


def test_a_start_imports_only_what_the_first_result_needs(tiny_model, tmp_path):
    arguments = ["--source", "demo", "--model", tiny_model, "--detector", "none", "--max-frames", "3"]
    command = [sys.executable, "-c", FIRST_RESULT, tmp_path / "r.jsonl", *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    modules = set(done.stdout.split())
    assert {"edgekit.device.pipeline.loop", "numpy", "cv2", "onnxruntime"} <= modules
    assert modules & NOT_NEEDED == set()
