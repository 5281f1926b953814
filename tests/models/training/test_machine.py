"""Properties of the machine that a training detects: support of bf16, and how idle threads wait."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from edgekit.models.training import machine


def test_the_processor_and_the_net_decide_about_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "processor_has_bf16", lambda: True)
    chosen = [machine.choose_precision(name) for name in ("edgecnn", "edgecnn@128", "timm/resnet18")]
    assert chosen == ["bf16", "bf16", "fp32"]
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert machine.choose_precision("edgecnn") == "fp32", "the other machine may have another processor"
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.setattr(machine, "processor_has_bf16", lambda: False)
    assert machine.choose_precision("edgecnn") == "fp32"


def test_idle_threads_of_torch_sleep() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment["OMP_DISPLAY_ENV"] = "VERBOSE"
    command = [sys.executable, "-c", "import edgekit.models.torch_threads"]  # the smallest module that imports torch
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    # An unset policy is displayed as PASSIVE, too, but threads spin 300,000 times then.
    assert "GOMP_SPINCOUNT = '0'" in done.stderr
