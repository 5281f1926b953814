"""`edgekit service` from the command line, with a real `edgekit run`, a real stream and a fake systemd.

tests/systemd tests it with a real systemd.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekit.cli import run as run_command_line
from edgekit.errors import EXIT_FAULT, EXIT_OK, EXIT_USAGE
from tests.fake_systemd import FakeSystemd
from tests.waiting import wait_until

PATIENCE_S = 60
ROOT = Path(__file__).parents[3]
Service = Callable[..., tuple[int, Any]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary home folder; the working directory is another empty folder."""
    home, folder = tmp_path / "home", tmp_path / "work"
    for path in (home, folder):
        path.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(folder)
    return home


@pytest.fixture
def systemd(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSystemd]:
    with FakeSystemd(tmp_path / "systemd", home) as fake:
        monkeypatch.setenv("PATH", str(fake.folder), prepend=os.pathsep)
        yield fake


@pytest.fixture
def service(systemd: FakeSystemd, capfd: pytest.CaptureFixture[str]) -> Service:
    """Return a function that runs `edgekit service` and returns the exit code and the JSON document or the text."""
    del systemd

    def call(name: str, *arguments: object) -> tuple[int, Any]:
        code = run_command_line(["service", name, "--user", *map(str, arguments)])
        captured = capfd.readouterr()
        return code, json.loads(captured.out) if captured.out.startswith("{") else captured.out + captured.err

    return call


def until(service: Service, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    end_s = time.monotonic() + PATIENCE_S
    while not condition(found := service("status", "--json")[1]):
        assert time.monotonic() < end_s, (found, service("logs")[1])
        time.sleep(0.05)
    return found


def test_a_run_is_a_service_from_install_to_remove(service, play, tiny_model):
    server = play([("pictures", 100_000, (64, 48))])
    settings = {"model": str(tiny_model), "detector": "none", "source": server.url}
    config = Path("my settings.toml")
    config.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items()))
    code, document = service("install", "--json", "--config", config, "--", "--jsonl", "50% of $X.jsonl")
    assert code == EXIT_OK
    assert document["manager"] == "systemd"
    first = until(service, lambda found: found["state"] == "running")
    assert first["starts_at_boot"]
    assert service("status")[0] == EXIT_OK
    # The service runs in the current folder and receives its arguments unchanged.
    wait_until(Path("50% of $X.jsonl").exists)

    assert service("restart")[0] == EXIT_OK
    second = until(service, lambda found: found["state"] == "running" and found["pid"] != first["pid"])
    os.kill(second["pid"], signal.SIGKILL)
    assert until(service, lambda found: found["state"] == "failed")["last_exit"] == "signal 9"

    code, text = service("remove")
    assert code == EXIT_OK
    assert "removed" in text
    code, text = service("status")
    assert code == EXIT_FAULT
    assert "not installed" in text


def test_a_settings_file_with_a_typing_error_is_refused_at_once(service, home):
    Path("edgekit.toml").write_text('sorce = "demo"\n')
    code, text = service("install", "--config", "edgekit.toml")
    assert code == EXIT_USAGE
    assert "sorce" in text
    assert not (home / ".config").exists()


@pytest.mark.parametrize(
    ("options", "added"),
    [
        (["--", "--jsonl", "r.jsonl"], ["--records", "changes"]),
        (["--", "--jsonl", "r.jsonl", "--records=all"], []),
        (["--", "--web"], []),
        (["--config", "edgekit.toml"], []),
    ],
)
def test_a_new_service_without_a_settings_file_records_changes(service, options, added):
    Path("edgekit.toml").write_text('jsonl = "r.jsonl"\nsource = "missing.mp4"\n')
    source = ["--source", "missing.mp4"] if "--" in options else []
    code, document = service("install", "--json", *options, *source)
    assert code == EXIT_OK
    given = options[1:] if source else ["--config", str(Path("edgekit.toml").resolve())]
    assert document["command"][5:] == [*given, *source, *added]


def test_settings_that_cannot_work_are_a_failure_in_status_and_log(service):
    assert service("install", "--", "--source", "missing.mp4")[0] == EXIT_OK
    found = until(service, lambda found: found["state"] == "failed")
    assert (found["last_exit"], found["restarts"], found["pid"]) == ("exit code 2", 0, None)
    assert "source 'missing.mp4' does not exist" in service("logs")[1]
    assert any("missing.mp4" in line for line in service("logs", "--json")[1]["lines"])
    assert service("status")[0] == EXIT_FAULT


def test_a_unit_that_edgekit_did_not_write_is_refused(service, home):
    unit = home / ".config/systemd/user/edgekit.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\nExecStart=/bin/true\n")
    for call in (["install", "--", "--source", "demo"], ["restart"], ["remove"]):
        code, text = service(*call)
        assert (code, "was not written by edgekit" in text) == (EXIT_USAGE, True)
    assert unit.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["install"],
        ["install", "--config", "missing.toml"],
        ["install", "--", "--source", "demo", "--threads", "0"],
        ["install", "--", "--camera", "--mqtt-cert", "a.pem"],
        ["install", "--run-as", "root", "--", "--source", "demo"],
        ["install", "--name", "../x", "--", "--source", "demo"],
        ["logs"],
        ["remove"],
    ],
)
def test_bad_usage_is_one_message(service, home, arguments):
    code, text = service(*arguments)
    assert (code, text.count("\n")) == (EXIT_USAGE, 1)
    assert list(home.iterdir()) == list(Path().iterdir()) == []


@pytest.mark.parametrize("arguments", [["install", "--", "--source", "demo"], ["status"]])
def test_without_systemd_one_line_names_the_alternative(systemd, service, home, arguments):
    (systemd.folder / "offline").touch()
    code, text = service(*arguments)
    assert (code, text.count("\n")) == (EXIT_USAGE, 1)
    assert "does not run systemd" in text
    assert "`edgekit run` works in the foreground under any service manager" in text
    assert list(home.iterdir()) == []


@pytest.mark.usefixtures("systemd")
def test_a_system_service_needs_root(monkeypatch, capsys):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert run_command_line(["service", "install", "--system", "--", "--source", "demo"]) == EXIT_USAGE
    assert "a system service needs root: write 'sudo' before the command" in capsys.readouterr().err
