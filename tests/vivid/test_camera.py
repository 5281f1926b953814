"""A V4L2 camera of the kernel: vivid, in a virtual machine (`make test-vivid`)."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from edgekit.errors import EXIT_OK, EXIT_TEMPORARY
from tests.guest import SHARE, UnavailableError, run_in_guest

ROOT = Path(__file__).parents[2]
# node_types: capture only.
WEBCAM = {"vivid": "n_devs=1 node_types=0x1 num_inputs=1 input_types=0"}


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, dict[str, Any]]:
    """The output of each step of scenario.py, by the name of the step."""
    if not os.environ.get("EDGEKIT_TEST_VIVID"):
        pytest.skip("booting an emulated machine takes minutes: make test-vivid")
    share = tmp_path_factory.mktemp("vivid")
    shutil.copy(tiny_model, share / "tiny.onnx")
    script = str(Path(__file__).parent / "scenario.py")
    command = ["env", f"PYTHONPATH={ROOT}", sys.executable, script, f"{SHARE}/tiny.onnx", SHARE]
    try:
        output = run_in_guest(command, share, WEBCAM)
    except UnavailableError as error:
        pytest.skip(f"no virtual machine: {error}")
    print(output)
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return {line["step"]: line for line in lines}


def test_the_camera_is_listed_with_its_modes(steps):
    (camera,) = steps["cameras"]["document"]["cameras"]
    assert (camera["name"], camera["kind"], camera["model"]) == ("/dev/video0", "v4l2", "vivid")
    assert camera["blocked"] is None
    yuyv = [mode for mode in camera["modes"] if mode["format"] == "YUYV"]
    assert [640, 360] in [mode["size_wh"] for mode in yuyv]
    assert "Y16-BE" in [mode["format"] for mode in camera["modes"]]
    assert all(rate > 0 for mode in yuyv for rate in mode["fps"])


def test_it_gives_frames_of_the_size_and_format_that_were_asked_for(steps):
    step = steps["yuyv"]
    assert step["code"] == EXIT_OK, step["said"]
    assert (step["document"]["frames"], step["document"]["source"]) == (10, "camera '/dev/video0'")
    assert "instead of" not in step["said"]
    # The age counts from the driver's capture time, not from the read of the image.
    assert 0 < step["document"]["stages"]["age"]["p50_ms"] < 10_000


def test_a_format_that_the_camera_lacks_is_said(steps):
    step = steps["mjpg"]
    assert step["code"] == EXIT_OK, step["said"]
    assert "instead of MJPG" in step["said"]


def test_a_camera_of_another_bus_is_no_usb_camera(steps):
    assert steps["no usb"]["code"] == EXIT_TEMPORARY
    assert "no USB camera is connected" in steps["no usb"]["said"]


def test_who_holds_the_camera_is_told(steps):
    (camera,) = steps["busy"]["document"]["cameras"]
    assert camera["blocked"].startswith("in use by pid ")


def test_pulled_out_and_plugged_in_again_the_run_goes_on(steps):
    step = steps["unplugged"]
    assert step["gone"], "the node was away"
    assert step["code"] == EXIT_OK, step["said"]
    assert step["document"]["ended"] == "stopped"
    assert step["sequences"] == sorted(set(step["sequences"]))
    assert len(step["sequences"]) >= 10
