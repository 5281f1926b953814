"""Properties of the machine that a training detects: support of bf16, and load by other programs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch import Tensor, nn

from edgekit.device.benchmark.measure import OtherLoad
from edgekit.models.distill.run import distill
from edgekit.models.train import train
from edgekit.models.training import precision
from edgekit.models.training.contention import with_thread_choice

NET = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(72, 2))


@pytest.mark.parametrize(
    ("flags", "has_bf16"), [("fpu avx512f avx512_bf16", True), ("fpu amx_bf16", True), ("fpu avx512f avx2", False)]
)
def test_bf16_is_read_from_the_processors_flags(
    flags: str, has_bf16: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    monkeypatch.setattr(precision, "_CPUINFO", cpuinfo)
    assert precision.processor_has_bf16() == has_bf16


@pytest.mark.parametrize(("bf16_s", "expected"), [(0.5, "bf16"), (0.95, "fp32"), (2.0, "fp32")])
def test_bf16_is_chosen_only_where_it_is_faster(bf16_s: float, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "processor_has_bf16", lambda: True)
    monkeypatch.setattr(precision, "_step_s", lambda _net, _images, is_bf16: bf16_s if is_bf16 else 1.0)
    chosen, reason = precision.choose_precision(NET, (8, 8), 4)
    assert chosen == expected
    assert f"{1000 * bf16_s:.0f} ms in bf16" in reason


def test_a_processor_without_bf16_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "processor_has_bf16", lambda: False)
    monkeypatch.setattr(precision, "_step_s", lambda *_: pytest.fail("timed"))
    assert precision.choose_precision(NET, (8, 8), 4)[0] == "fp32"


def test_the_timed_step_has_no_more_images_than_the_data(
    bars_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []

    def step_s(_net: nn.Module, images: Tensor, _is_bf16: bool) -> float:
        counts.append(len(images))
        return 1.0

    monkeypatch.setattr(precision, "processor_has_bf16", lambda: True)
    monkeypatch.setattr(precision, "_step_s", step_s)
    options = {"data": bars_folder, "epochs": 1, "batch_size": 1000, "accelerator": "cpu"}
    train(**options, model="mini-xception", output=tmp_path / "teacher")
    distill(**options, student="mini-xception", teachers=[str(tmp_path / "teacher")], output=tmp_path / "student")
    assert set(counts) == {56}  # the training images


@pytest.mark.parametrize(
    ("others_s", "given", "threads", "warned"), [(20.0, None, 1, True), (20.0, 2, 2, True), (0.0, None, 2, False)]
)
def test_on_busy_cores_a_training_continues_with_one_thread_unless_the_user_chose(
    others_s: float, given: int | None, threads: int, warned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = [2]
    monkeypatch.setattr("torch.get_num_threads", lambda: chosen[-1])
    monkeypatch.setattr("torch.set_num_threads", chosen.append)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    messages: list[str] = []
    steps: list[str] = []
    now_s = 0.0
    (tmp_path / "proc").mkdir()

    def busy(seconds: float) -> None:
        ticks = int(seconds * os.sysconf("SC_CLK_TCK"))
        (tmp_path / "proc" / "stat").write_text(f"cpu {ticks} 0 0 0 0 0 0 0 0 0\n")

    def clock() -> float:
        return now_s

    step = with_thread_choice(
        steps.append, messages.append, given, lambda: OtherLoad(tmp_path, clock, lambda: 0.0), clock
    )
    busy(100)
    step("step")
    now_s = 1.0
    step("step")
    assert not messages
    busy(100 + others_s)
    now_s = 10.0
    step("step")
    step("step")
    assert (chosen[-1], bool(messages)) == (threads, warned)
    assert len(steps) == 4


@pytest.mark.parametrize("given", [None, "ACTIVE"])
def test_idle_threads_of_torch_sleep_unless_the_user_decides_otherwise(given: str | None) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"OMP_DISPLAY_ENV": "VERBOSE"} | ({"OMP_WAIT_POLICY": given} if given else {})
    command = [sys.executable, "-c", "import edgekit.models.torch_threads"]  # the smallest module that imports torch
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    # An unset policy is displayed as PASSIVE, too, but threads spin 300,000 times then.
    assert ("GOMP_SPINCOUNT = '0'" in done.stderr) == (given is None), done.stderr
