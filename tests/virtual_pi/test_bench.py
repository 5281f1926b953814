"""Benchmarks on the emulated board: first report, second report, and removal."""

from __future__ import annotations

import json
import subprocess

import pytest

from .board import VirtualPi
from .conftest import CACHE, QUICK, Benchmark, EdgekitRun


def test_one_command_leads_from_a_fresh_board_to_a_report(first_bench: Benchmark, suite: str) -> None:
    assert first_bench.done.returncode == 0, first_bench.done.stderr
    report = json.loads(first_bench.report.read_text())
    (board,) = report["boards"]
    assert board["label"] == "pi@127.0.0.1"
    assert board["board"]["model"] == "Raspberry Pi 3 Model B Plus Rev 1.3"
    assert board["board"]["architecture"] == "aarch64"
    assert board["board"]["cpu"] == "Cortex-A53"
    assert board["board"]["os_release"].endswith(f"({suite})")
    assert [entry["name"] for entry in board["models"]] == [str(first_bench.model)]
    assert {cell["kind"] for cell in board["cells"]} == {"net", "frame", "run"}
    assert board["notes"] == {"fan": "it's $(off)"}
    (host,) = report["hosts"]
    assert host["error"] is None
    assert host["sent_bytes"] > 50e6


def test_the_report_is_marked_as_emulated(first_bench: Benchmark) -> None:
    document = json.loads(first_bench.report.read_text())
    assert document["boards"][0]["board"]["virtualization"] == "emulator"
    assert "EMULATED" in first_bench.done.stdout
    assert "EMULATED" in first_bench.report.with_suffix(".html").read_text().upper()


@pytest.fixture(scope="module")
def second_bench(
    first_bench: Benchmark, pi: VirtualPi, edgekit: EdgekitRun, tmp_path_factory: pytest.TempPathFactory
) -> subprocess.CompletedProcess[str]:
    """A second benchmark, on a throttled board and on a board that is off."""
    assert first_bench.done.returncode == 0
    inventory = tmp_path_factory.mktemp("second bench") / "boards.toml"
    inventory.write_text(
        f'[[host]]\nhost = "pi@127.0.0.1"\nlabel = "living"\nport = {pi.port}\n'
        '[[host]]\nhost = "pi@127.0.0.1"\nlabel = "dead"\nport = 1\n'
    )
    options = [f"--ssh-option={option}" for option in pi.host.ssh_options]
    arguments = [*QUICK, "--no-pipeline", "--inventory", inventory, "--identity", pi.host.identity, *options]
    (pi.sys / "throttled").write_text("0x50005\n")
    try:
        return edgekit("bench", first_bench.model, *arguments, "--json")
    finally:
        (pi.sys / "throttled").write_text("0x0\n")


def test_the_second_run_sends_nothing_flags_throttling_and_reports_a_board_that_is_off(
    second_bench: subprocess.CompletedProcess[str],
) -> None:
    done = second_bench
    assert done.returncode == 4
    assert "dead: the port is closed" in done.stderr
    assert "1 of 2 boards failed: dead\n" in done.stderr
    report = json.loads(done.stdout)
    (board,) = report["boards"]
    assert board["label"] == "living"
    assert all("throttled" in cell["marks"] for cell in board["cells"])
    assert [(host["label"], host["sent_bytes"], bool(host["error"])) for host in report["hosts"]] == [
        ("living", 0, False),
        ("dead", 0, True),
    ]


@pytest.mark.usefixtures("cache_copy", "second_bench")
def test_clean_removes_everything(pi: VirtualPi, edgekit: EdgekitRun) -> None:
    assert pi.path(CACHE).exists()
    done = edgekit("host", "clean", *pi.arguments)
    assert done.returncode == 0, done.stderr
    assert not pi.path(CACHE).exists()
