"""The releases that `edgekit deploy` has put on this machine, and whether a release can run.

It uses only the standard library, because it is also sent to boards where edgekit is not installed.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_TIMEOUT_S = 60


@dataclass(frozen=True)
class Unusable:
    """Why a release cannot run, and the step that repairs it."""

    reason: str
    cure: str

    def __str__(self) -> str:
        return f"{self.reason}: {self.cure}"


def deploy_folder() -> Path:
    """Return the folder that has one folder for each deployed service, by its name."""
    data = os.environ.get("XDG_DATA_HOME", "")
    return (Path(data) if data.startswith("/") else Path.home() / ".local/share") / "edgekit/deploy"


def current_releases() -> dict[str, Path]:
    """Return the folder of the current release of each deployed service, by the service's name."""
    links = sorted(deploy_folder().glob("*/current"))
    return {link.parent.name: link.resolve() for link in links if link.is_dir()}


def command_of(own: str | None, release: Path) -> tuple[list[str], Mapping[str, str]]:
    """Return the words before the subcommand, and the environment variables, that call the edgekit of a release.

    `own` is the path of an edgekit that is installed on the board; None for the environment in the release.
    """
    if own:
        return [own], {}
    # -P: no module of the folder in which the command is called is imported.
    words = [str(release / "env/bin/python"), "-P", "-m", "edgekit.cli"]
    return words, {"PYTHONPATH": str(release / "code")}


def unusable(release: Path) -> Unusable | None:
    """Return why the edgekit of a release cannot be called, for example after an upgrade of Python; None if it can."""
    try:
        # The path of an edgekit that is installed on the board; None for the environment in the release.
        own = json.loads((release / "release.json").read_text())["command"]
    except (OSError, ValueError, KeyError, TypeError):
        return Unusable(f"release {release.name} is damaged: its release.json cannot be read", "deploy it again")
    words, variables = command_of(own, release)
    try:
        done = subprocess.run(
            [*words, "--version"],
            env={**os.environ, **variables, "PYTHONDONTWRITEBYTECODE": "1"},  # a check must not change the release
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_S,
        )
        if done.returncode == 0:
            return None
        problem = "does not work"
    except OSError:
        problem = "is missing"
    except subprocess.TimeoutExpired:  # the board is overloaded, which is no fault of the release
        return None
    if own:
        return Unusable(f"release {release.name} cannot run: '{own}' {problem}", "install edgekit on the board again")
    reason = f"release {release.name} cannot run: its environment {problem} (was Python upgraded?)"
    return Unusable(reason, "deploy it again")
