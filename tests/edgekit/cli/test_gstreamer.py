"""`edgekit run --source gst:…` with the system's OpenCV, which supports GStreamer; the OpenCV from pip does not."""

from __future__ import annotations

import configparser
import fcntl
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.errors import EXIT_OK, EXIT_TEMPORARY

SYSTEM_PYTHON = "/usr/bin/python3"
ROOT = Path(__file__).parents[3]
# Each command takes about a second on an idle machine, but a package index may be slow.
TIMEOUT_S = 600
HAS_GSTREAMER = "import cv2, sys; sys.exit(not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER))"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def system_edgekit() -> Run:
    """Return a function that calls `edgekit run` in the system's Python, with the system's OpenCV."""
    if (
        not Path(SYSTEM_PYTHON).exists()
        or subprocess.run([SYSTEM_PYTHON, "-c", HAS_GSTREAMER], capture_output=True).returncode
    ):
        pytest.skip("the system's OpenCV is not here: apt install python3-opencv gstreamer1.0-plugins-base")
    command = [SYSTEM_PYTHON, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    version = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    texts = (setup["options"]["install_requires"], setup["options.extras_require"]["device"])
    lines = [line for text in texts for line in text.split("\n") if line and line[0] != "#"]
    wanted = [line for line in lines if not line.startswith("opencv")]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{cached_packages(version, wanted)}"}

    def run(*options: object) -> subprocess.CompletedProcess[str]:
        command = [SYSTEM_PYTHON, "-m", "edgekit.cli", "run", *map(str, options)]
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment)

    return run


def cached_packages(version: str, wanted: list[str]) -> Path:
    """Return a folder with these packages for the system's Python, which is kept between test runs."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgekit-test-packages"
    cache.mkdir(parents=True, exist_ok=True)
    packages = cache / hashlib.sha256("\n".join([version, *wanted]).encode()).hexdigest()[:16]
    with (cache / "lock").open("w") as lock, tempfile.TemporaryDirectory(dir=cache) as unfinished:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if packages.exists():
            return packages
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
        command += ["--root-user-action=ignore", "--no-compile", "--target", f"{unfinished}/packages"]
        command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", version, *wanted]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
        if done.returncode:
            pytest.skip(f"no packages for Python {version}: {done.stderr.strip()[-200:]}")
        return Path(unfinished, "packages").rename(packages)


@pytest.mark.parametrize(
    "pipeline",
    [
        "videotestsrc pattern=red is-live=true ! video/x-raw,width=320,height=240",
        "videotestsrc pattern=red is-live=true ! video/x-raw,width=320,height=240 ! videoconvert "
        "! video/x-raw,format=BGR ! appsink drop=true max-buffers=1",
    ],
)
def test_a_pipeline_gives_its_frames_in_the_right_colours(system_edgekit, tiny_model, tmp_path, pipeline):
    """The model's logits are the means of red, green and blue, so its label is the colour of the frames."""
    lines = tmp_path / "r.jsonl"
    options = ("--model", tiny_model, "--detector", "none", "--max-frames", 5, "--jsonl", lines, "--json")
    done = system_edgekit("--source", f"gst:{pipeline}", *options)
    assert done.returncode == EXIT_OK, done.stderr
    document = json.loads(done.stdout)
    assert (document["frames"], document["labels"]) == (5, {"red": 5})
    records = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [record["frame_wh"] for record in records] == [[320, 240]] * 5
    sequences = [record["sequence"] for record in records]
    assert sequences == sorted(set(sequences))


def test_a_pipeline_that_cannot_run_is_one_line(system_edgekit, tiny_model):
    # All elements exist, because OpenCV waits for 30 seconds if an element is missing.
    source = "gst:filesrc location=/no/such/file ! decodebin"
    done = system_edgekit("--source", source, "--model", tiny_model, "--detector", "none")
    assert done.returncode == EXIT_TEMPORARY
    last = done.stderr.splitlines()[-1]  # after GStreamer's own lines
    assert last.startswith("edgekit: error: pipeline 'filesrc")
    assert last.endswith("does not run: test it with gst-launch-1.0")
    assert "Traceback" not in done.stderr
