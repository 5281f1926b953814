"""A simulated board for releases: a folder of this machine behind a real sshd, with a fake systemd."""

from __future__ import annotations

import json
import os
import shutil
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import edgekit
from edgekit.remote.deploy import Package, ReleaseChange, Service, deploy_host
from edgekit.remote.hosts import Host
from edgekit.remote.payload import pack
from edgekit.remote.prepare import EdgekitCommand, prepare
from edgekit.remote.probe import Probe
from edgekit.remote.ssh import Connection
from tests.fake_systemd import FakeSystemd
from tests.waiting import wait_until

SOURCE = Path(edgekit.__file__).parents[1]
OWN = f'#!/bin/sh\nexec env PYTHONPATH="{SOURCE}" "{sys.executable}" -m edgekit.cli "$@"\n'
SERVICE = Service("edgekit", "user")
MakePackage = Callable[..., Package]


class Quiet:
    """A reporter that passes each message to `on_line` and ignores progress."""

    def __init__(self, on_line: Callable[[str], None] = lambda _: None) -> None:
        self.on_line = on_line

    def message(self, host: Host, text: str) -> None:
        del host
        self.on_line(text)

    def progress(self, host: Host, what: str, done: float, total: float) -> None:
        pass


@dataclass
class Board:
    """The home folder and the fake systemd of a simulated board."""

    home: Path
    systemd: FakeSystemd

    @property
    def root(self) -> Path:
        return self.home / ".local/share/edgekit/deploy/edgekit"

    @property
    def unit(self) -> Path:
        return self.home / ".config/systemd/user/edgekit.service"

    @property
    def current(self) -> str:
        return (self.root / "current").readlink().name

    def status(self) -> dict[str, str]:
        """Return the load state, active state and process id of the service."""
        words = ("show", "edgekit.service", "--property=LoadState,ActiveState,MainPID")
        return dict(line.split("=", 1) for line in self.systemd.systemctl(*words).splitlines())

    def wait_until_it_runs(self) -> int:
        """Wait until the service has finished a frame; return its process id."""
        log = self.systemd.folder / "edgekit.log"
        wait_until(lambda: self.status()["ActiveState"] == "active", failure=log.read_text)
        return int(self.status()["MainPID"])

    def model_that_runs(self) -> bytes:
        """Return the content of the model file that the command line of the running process names."""
        pid = self.wait_until_it_runs()
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return Path(os.fsdecode(words[words.index(b"--model") + 1])).read_bytes()


def make_package(
    folder: Path, model: Path, number: int, source: str, keep: int = 3, content: bytes | None = None
) -> Package:
    """Return a package whose model hash depends on `number`; `content` replaces the content of the model file."""
    import onnx

    document = onnx.load(model)
    document.doc_string = f"number {number}"
    path = folder / f"it's; $(touch planted) {number}.onnx"
    path.write_bytes(document.SerializeToString() if content is None else content)
    config = folder / f"{number}.toml"
    config.write_text(f'source = {json.dumps(source)}\ndetector = "none"\njsonl = "results.jsonl"\n')
    uploads = {"model.onnx": pack(path, "model"), "edgekit.toml": pack(config, "settings")}
    return Package(uploads, path.name, keep, install=False, settle_s=0.2)


def deploy(connection: Connection, package: Package) -> ReleaseChange:
    return deploy_host(connection, package, SERVICE, Quiet())


def content(package: Package) -> bytes:
    return package.files["model.onnx"].path.read_bytes()


def board_plan(board: Board, package: Package, files: dict[str, Path]) -> dict[str, Any]:
    """Return the argument of the board's part of a deploy, for files that are already on the board."""
    return {
        "action": "deploy", "name": "edgekit", "scope": "user", "health_s": 60, "trial_s": 60, "settle_s": 0.2,
        "keep": 3, "environment": None, "code": None, "command": str(board.home / ".local/bin/edgekit"),
        "about": {"model": "m", "edgekit": "e"},
        "files": {name: [str(files[name]), upload.sha256] for name, upload in package.files.items()},
    }  # fmt: skip


def use_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Let a deploy use a new environment in `folder` in place of one that it would install.

    Returns the folders of the environment and of edgekit's code.
    """
    environment, code = folder / "envs/e", folder / "code/c"
    venv.EnvBuilder(symlinks=True).create(environment)
    site = environment / "lib" / "python{}.{}".format(*sys.version_info[:2]) / "site-packages"
    (site / "packages.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    shutil.copytree(SOURCE / "edgekit", code / "edgekit", ignore=shutil.ignore_patterns("__pycache__"))

    def prepare_files(connection: Connection, board: Probe, *args: Any, **options: Any) -> EdgekitCommand:
        if not options["install"]:
            return prepare(connection, board, *args, **options)
        sent = prepare(connection, replace(board, commands=("own",)), *args, **options | {"install": False})
        return replace(sent, environment=str(environment), code=str(code))

    monkeypatch.setattr("edgekit.remote.deploy.prepare", prepare_files)
    return environment, code
