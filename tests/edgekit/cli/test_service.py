"""`edgekit service` as a user meets it, with the real `edgekit run` on a real stream, on a machine without systemd."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekit.cli import _run
from edgekit.device.procfs import start_ticks
from edgekit.errors import EXIT_FAULT, EXIT_OK, EXIT_USAGE
from tests.waiting import wait_until

PATIENCE_S = 60
ROOT = Path(__file__).parents[3]

if Path("/run/systemd/system").exists():
    pytest.skip("systemd runs here: tests/systemd/test_service_systemd.py boots its own", allow_module_level=True)


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> Iterator[Callable[..., tuple[int, Any]]]:
    """Run `edgekit service` with arguments; returns the exit code and the JSON document, if there is one."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)

    def call(name: str, *arguments: object) -> tuple[int, Any]:
        code = _run(["service", name, "--user", *map(str, arguments)])
        captured = capfd.readouterr()
        return code, json.loads(captured.out) if captured.out.startswith("{") else captured.out + captured.err

    yield call
    call("remove")


def until(service: Callable[..., tuple[int, Any]], condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    end_s = time.monotonic() + PATIENCE_S
    while not condition(found := service("status", "--json")[1]):
        assert time.monotonic() < end_s, (found, service("logs")[1])
        time.sleep(0.1)
    return found


def test_a_run_is_kept_up_from_install_to_remove(service, play, tiny_model, tmp_path):
    server = play([("pictures", 100_000, (64, 48))])
    settings = {"model": str(tiny_model), "detector": "none", "source": server.url}
    config = tmp_path / "my settings.toml"
    config.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items()))
    code, document = service("install", "--json", "--config", config, "--", "--jsonl", "50% of $X.jsonl")
    assert code == EXIT_OK
    assert document["manager"] == "supervisor"
    first = until(service, lambda found: found["state"] == "running")
    assert service("status")[0] == EXIT_OK
    # It runs in the current folder.
    wait_until((tmp_path / "50% of $X.jsonl").exists)

    os.kill(first["pid"], signal.SIGKILL)
    second = until(service, lambda found: found["state"] == "running" and found["restarts"] == 1)
    assert second["last_exit"] == "signal 9"
    code, document = service("logs", "--json", "--lines", 100)
    assert any("ended with signal 9" in line for line in document["lines"])

    code, text = service("remove")
    assert (code, start_ticks(second["pid"])) == (EXIT_OK, None)
    assert "removed" in text
    code, text = service("status")
    assert code == EXIT_FAULT
    assert "not installed" in text


def test_a_settings_file_with_a_slip_is_refused_at_once(service, tmp_path):
    (tmp_path / "edgekit.toml").write_text('sorce = "demo"\n')
    code, text = service("install", "--config", "edgekit.toml")
    assert code == EXIT_USAGE
    assert "sorce" in text
    assert not (tmp_path / "state").exists()


def test_settings_that_cannot_work_are_a_failure_that_status_tells(service):
    assert service("install", "--", "--source", "missing.mp4")[0] == EXIT_OK
    found = until(service, lambda found: found["state"] == "failed")
    assert (found["last_exit"], found["restarts"], found["pid"]) == ("exit code 2", 0, None)
    assert "source 'missing.mp4' does not exist" in service("logs")[1]
    assert service("status")[0] == EXIT_FAULT


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["install"], "nothing to run: give --config TOML"),
        (["install", "--config", "missing.toml"], "missing.toml' does not exist"),
        (["install", "--folder", "missing", "--", "--source", "demo"], "missing' does not exist"),
        (["install", "--", "--sorce", "demo"], "No such option '--sorce'"),
        (["install", "--", "--source", "demo", "--threads", "0"], "0 is not in the range"),
        (["install", "--", "--jsonl", "a.jsonl"], "the service has nothing to look at"),
        (["install", "--env", "X", "--", "--source", "demo"], "--env takes NAME=VALUE"),
        (["install", "--run-as", "root", "--", "--source", "demo"], "--run-as is for a --system service"),
        (["install", "--name", "../x", "--", "--source", "demo"], "service name '../x'"),
        (["status", "--name", "../../etc"], "service name '../../etc'"),
        (["logs"], "there is no user service 'edgekit'"),
        (["logs", "--follow", "--json"], "leave one out"),
        (["remove"], "there is no user service 'edgekit'"),
    ],
)
def test_bad_usage_is_one_clear_message(service, tmp_path, arguments, message):
    code, text = service(*arguments)
    assert code == EXIT_USAGE
    assert message in text
    assert text.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_system_service_takes_root(monkeypatch, capsys):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert _run(["service", "install", "--system", "--", "--source", "demo"]) == EXIT_USAGE
    assert "a system service needs root: write 'sudo' before the command" in capsys.readouterr().err
