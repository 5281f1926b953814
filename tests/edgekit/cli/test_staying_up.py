"""Faults during an `edgekit run`: messages, continuation and exit codes."""

from __future__ import annotations

import json
import signal

import pytest

from edgekit.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_TEMPORARY
from tests.waiting import wait_until

SMALL = (64, 48)
ENDLESS = ("pictures", 100_000, SMALL)


# Shorter stall limits and reopen pauses than the defaults; the order of events is the same.
SOON = """
from edgekit.device.sources import live, opencv
opencv.READ_TIMEOUT_MS, live.REOPEN_PAUSES_S = 1200, (0.1, 0.1)
opencv.OPEN_TIMEOUT_MS, live.HANGS_S = 60_000, 90
"""


def test_a_camera_without_frames_is_reported_and_opened_again_and_the_run_continues(start, play, tmp_path):
    server = play([("pictures", 50, SMALL), ("silence", 1000)], [ENDLESS])
    run = start("--source", server.url, "--jsonl", tmp_path / "r.jsonl", before=SOON)
    run.until_printed("was lost after")
    run.until_printed("was reopened")
    jsonl = tmp_path / "r.jsonl"
    # The first connection delivered the images 0 to 49.
    wait_until(lambda: json.loads(jsonl.read_text().splitlines()[-1])["sequence"] >= 50)
    wait_until(lambda: jsonl.read_text().count('"health"') >= 2)
    run.process.send_signal(signal.SIGTERM)
    assert run.end() == EXIT_OK
    document = json.loads(run.document)
    assert document["ended"] == "stopped"
    assert document["health"]["samples"] >= 2


def test_a_camera_that_does_not_come_back_ends_the_run_with_its_own_code(start, play):
    server = play([("pictures", 50, SMALL), ("end",)], clients=1)
    run = start("--source", server.url, before=SOON)
    assert run.end() == EXIT_TEMPORARY
    assert "could not be reopened in 2 attempts" in run.stderr_text
    document = json.loads(run.document)
    assert document["ended"] == "failed"
    assert 1 <= document["frames"] <= 50


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_does_not_wait_for_the_timeout_of_a_sender_that_sends_nothing(start, play, number):
    server = play([("silence", 1000)])
    long = "from edgekit.device.sources import opencv\nopencv.OPEN_TIMEOUT_MS = opencv.READ_TIMEOUT_MS = 600_000"
    run = start("--source", server.url, before=long)
    run.until(lambda: server.served == 1)
    run.process.send_signal(number)
    assert run.end() == (EXIT_OK if number == signal.SIGTERM else EXIT_INTERRUPTED)


def test_after_a_kill_all_lines_are_complete_and_the_next_run_starts(start, play, tmp_path):
    server = play([ENDLESS])
    run = start("--source", server.url, "--jsonl", tmp_path / "r.jsonl")
    jsonl = tmp_path / "r.jsonl"
    wait_until(lambda: jsonl.exists() and jsonl.read_text().count("\n") >= 20)
    run.process.send_signal(signal.SIGKILL)
    run.end()
    text = (tmp_path / "r.jsonl").read_text()
    assert [json.loads(line)["sequence"] for line in text.splitlines()]
    assert text.endswith("\n")
    again = start("--source", server.url, "--jsonl", tmp_path / "r.jsonl", "--max-frames", 5)
    assert again.end() == EXIT_OK


def test_a_throttled_board_is_reported_and_its_load_is_reduced(start, play, scripted_board, tmp_path):
    server = play([ENDLESS])
    run = start("--source", server.url, "--jsonl", tmp_path / "r.jsonl")
    wait_until(lambda: scripted_board.times_asked >= 2)
    scripted_board.set(flags=0x50005, clock_mhz=600)
    run.until_printed("load level 1 of 3")
    jsonl = tmp_path / "r.jsonl"
    wait_until(lambda: jsonl.exists() and '"0x50005"' in jsonl.read_text())
    run.process.send_signal(signal.SIGTERM)
    assert run.end() == EXIT_OK
    health = json.loads(run.document)["health"]
    assert health["throttled"] == ["under-voltage (weak power supply or cable)", "throttled"]
    assert health["max_load_level"] >= 1
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    samples = [line["health"] for line in lines if "health" in line]
    assert 1 <= len(samples) <= health["samples"] < len(lines)
    assert samples[-1]["throttling"]["flags"] == "0x50005"
