"""Health samples: their contents, the rate of firmware reads, and the summary of a run."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from edgekit.device.health.sampler import FIRMWARE_EVERY, Health, HealthSampler, read_health
from tests.waiting import wait_until


def test_a_sample_contains_the_state_of_board_process_and_disk(scripted_board, tmp_path):
    scripted_board.set(temperature_c=61.5, flags=0x80008, clock_mhz=1200)
    sample = read_health(tmp_path, scripted_board.root)
    assert sample.describe().startswith("61.5 °C, 1200 MHz, soft temperature limit, ")
    document = json.loads(json.dumps(sample.as_document()))
    assert (document["temperature_c"], document["clock_mhz"], document["clock_source"]) == (61.5, 1200, "firmware")
    assert document["throttling"]["now"] == ["soft temperature limit"]
    assert document["open_files"] >= 3
    assert document["threads"] == len(list(Path("/proc/self/task").iterdir()))
    resident_mib = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
    assert document["memory_own_mib"] == pytest.approx(resident_mib, abs=5)
    assert document["disk_free_mib"] > 0


def test_the_sampler_follows_the_board_and_reads_the_firmware_rarely(scripted_board, tmp_path):
    seen: list[Health] = []
    with HealthSampler(tmp_path, pytest.fail, seen.append, root=scripted_board.root, period_s=0.01) as sampler:
        wait_until(lambda: len(seen) >= 3 * FIRMWARE_EVERY)
        scripted_board.set(temperature_c=83.0, flags=0x20002, clock_mhz=1200)
        wait_until(lambda: sampler.latest.conditions.clock_mhz == 1200 and sampler.latest.conditions.throttling.now)
        assert sampler.latest.conditions.temperature_c == 83.0
    count = len(seen)
    # Every fifth sample reads the firmware twice; one more sample may have started.
    assert scripted_board.times_asked <= 2 * (count / FIRMWARE_EVERY + 2)
    document = sampler.summary.as_document()
    assert (document["samples"], document["max_temperature_c"], document["min_clock_mhz"]) == (count, 83.0, 1200)
    assert document["throttled"] == ["clock capped"]
    assert document["cost_ms"] > 0
    assert json.dumps(document)
    assert "at most 83.0 °C" in sampler.summary.describe()
    time.sleep(0.05)
    assert len(seen) == count, "it ended with its block"
