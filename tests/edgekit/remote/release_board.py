"""A board for releases: a folder of this machine behind the real sshd, its service the supervisor's."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import edgekit
from edgekit.device.service.spec import ServiceStatus
from edgekit.device.service.supervised import SupervisedManager
from edgekit.remote.deploy import Package, ReleaseChange, Service, deploy_host
from edgekit.remote.hosts import Host
from edgekit.remote.ssh import Connection
from edgekit.remote.transfer import pack

SOURCE = Path(edgekit.__file__).parents[1]
OWN = f'#!/bin/sh\nexec env PYTHONPATH="{SOURCE}" "{sys.executable}" -m edgekit.cli "$@"\n'
SERVICE = Service("edgekit", "user")
PATIENCE_S = 60
MakePackage = Callable[..., Package]


class Quiet:
    """Hears and forgets, but calls `on_line` with each line."""

    def __init__(self, on_line: Callable[[str], None] = lambda _: None) -> None:
        self.on_line = on_line

    def message(self, host: Host, text: str) -> None:
        del host
        self.on_line(text)

    def progress(self, host: Host, what: str, done: float, total: float) -> None:
        pass


@dataclass
class Board:
    """The board's side: its home, and what runs on it."""

    home: Path
    manager: SupervisedManager

    @property
    def root(self) -> Path:
        return self.home / ".local/share/edgekit/deploy/edgekit"

    @property
    def services(self) -> Path:
        return self.home / ".local/state/edgekit/services/edgekit"

    @property
    def current(self) -> str:
        return (self.root / "current").readlink().name

    def status(self) -> ServiceStatus:
        return self.manager.status("edgekit")

    def wait_until_it_runs(self) -> ServiceStatus:
        end_s = time.monotonic() + PATIENCE_S
        while (found := self.status()).state != "running" or found.pid is None:
            assert time.monotonic() < end_s, (found, (self.services / "log").read_text())
            time.sleep(0.05)
        return found

    def model_that_runs(self) -> bytes:
        """Return the model that the running process was started with, by its own words and the link."""
        pid = self.wait_until_it_runs().pid
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return Path(os.fsdecode(words[words.index(b"--model") + 1])).read_bytes()


def make_package(
    folder: Path, model: Path, number: int, source: str, keep: int = 3, content: bytes | None = None
) -> Package:
    """Return a release of a model with a hash of its own; `content` takes the model's place."""
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
    """Return what a board's own part of a deploy is given, for files that are there already."""
    return {
        "action": "deploy", "name": "edgekit", "scope": "user", "health_s": 60, "trial_s": 60, "settle_s": 0.2,
        "keep": 3, "environment": None, "code": None, "command": str(board.home / ".local/bin/edgekit"),
        "about": {"model": "m", "edgekit": "e"},
        "files": {name: [str(files[name]), upload.sha256] for name, upload in package.files.items()},
    }  # fmt: skip
