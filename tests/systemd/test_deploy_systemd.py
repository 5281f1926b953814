"""Releases over a real sshd on a machine with a real systemd, which is booted in separate namespaces."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.ports import free_port

from .lab import ROOT, boot


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, dict[str, Any]]:
    """The output of each step of deploy_scenario.py, by the name of the step."""
    if shutil.which("sshd", path="/usr/sbin") is None or shutil.which("ssh") is None:
        pytest.skip("no sshd here: apt-get install openssh-server openssh-client")
    lab = tmp_path_factory.mktemp("lab")
    folder = lab / "work"
    own = folder / "home/.local/bin/edgekit"
    own.parent.mkdir(parents=True)
    own.write_text(f'#!/bin/sh\nexec env PYTHONPATH="{ROOT}" "{sys.executable}" -m edgekit.cli "$@"\n')
    own.chmod(0o755)
    for name in ("id", "host_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    port = free_port()
    key = (folder / "host_key.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {key}")
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder / 'host_key'}\nStrictModes no\nUsePAM no\n"
        f"AuthorizedKeysFile {folder / 'id.pub'}\nPermitRootLogin yes\nPidFile none\nSetEnv HOME={folder / 'home'}\n"
    )
    models = []
    for number in range(3):
        model = onnx.load(tiny_model)
        model.doc_string = f"number {number}"
        models.append(folder / f"{number}.onnx")
        onnx.save(model, models[-1])
    return {line["step"]: line for line in boot(lab, "deploy_scenario.py", folder, port, *models)}


def test_systemd_runs_what_was_deployed(steps: dict[str, dict[str, Any]]) -> None:
    first, second = steps["first"], steps["second"]
    for step in (first, second):
        assert step["code"] == 0, step["said"]
        assert (step["state"], step["manager"], step["starts_at_boot"]) == ("running", "systemd", True)
        assert step["current"].endswith(step["runs"])
    assert second["pid"] != first["pid"]
    assert second["current"] != first["current"]


def test_a_release_that_does_not_come_up_is_taken_back(steps: dict[str, dict[str, Any]]) -> None:
    bad = steps["bad"]
    assert bad["code"] == 4
    assert "source 'missing.mp4' does not exist" in bad["said"]
    assert (bad["state"], bad["current"]) == ("running", steps["second"]["current"])
    assert bad["runs"] == steps["second"]["runs"]


def test_a_deploy_killed_with_everything_leaves_what_runs_at_the_next_start(steps: dict[str, dict[str, Any]]) -> None:
    cut = steps["cut"]
    assert (cut["cut"], cut["state"]) == (True, "running")
    assert cut["runs"] not in (steps["first"]["runs"], steps["second"]["runs"])


def test_the_next_call_settles_it_and_goes_back(steps: dict[str, dict[str, Any]]) -> None:
    back = steps["rollback"]
    assert back["code"] == 0, back["said"]
    assert "an earlier call was interrupted" in back["said"]
    assert (back["state"], back["current"], back["runs"]) == (
        "running", steps["second"]["current"], steps["second"]["runs"],
    )  # fmt: skip
    assert not steps["after"]["cut"]
