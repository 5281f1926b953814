"""The service that runs the current release, as systemd has it: started and judged."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping
from typing import Any

from edgekit.boards import systemd_is_running
from edgekit.errors import EdgekitError, HostError
from edgekit.files import write_atomic
from edgekit.remote.board.releases import Releases
from edgekit.remote.board.runtime import errors_in, last_error, model_name, say

_POLL_S = 0.5
_TOOL_TIMEOUT_S = 120
# A service that is being restarted is between two states for a moment.
_BAD_LOOKS = 4
_ILL = ("failed", "waiting to restart")


class Service:
    """The service of a folder of releases, a user's or the system's (`scope`).

    `health_s` is how long its first frame may take, `settle_s` how long it must then run to count as well.
    `is_managed` is False on a board without systemd: then no service is installed and no release is judged.
    """

    def __init__(self, releases: Releases, name: str, scope: str, health_s: float, settle_s: float) -> None:
        self._releases = releases
        self._name = name
        self._which = ["--name", name, f"--{scope}"]
        self._health_s = health_s
        self._settle_s = settle_s
        self._note = releases.root / "service.json"
        self.is_managed = systemd_is_running()

    def refuse_strangers(self, release: str) -> None:
        """Refuse a service of this name that deploy did not make.

        Raises:
            HostError: There is one.
        """
        if self.is_managed and self._noted() is None and self.status(release)["state"] != "not installed":
            raise HostError(f"its service '{self._name}' was not made by deploy: choose another --name")

    def status(self, release: str) -> dict[str, Any]:
        """Return what `edgekit service status` says.

        Raises:
            HostError: It says nothing of use.
        """
        if not self.is_managed:
            return {"state": "not installed", "text": "this board does not run systemd"}
        done = self._edgekit(release, "service", "status", *self._which, "--json")
        try:
            document = json.loads(done.stdout)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise HostError(f"'edgekit service status' on the board says: {last_error(done.stderr)}")
        return document

    def start_and_judge(self, release: str) -> str | None:
        """Have the service run the current release anew; return what is wrong with it, None if nothing is."""
        if not self.is_managed:
            return None
        try:
            return self._start(release)
        except (EdgekitError, OSError, ValueError, KeyError) as error:
            # An edgekit that does not even answer is an ill release.
            return str(error)

    def remove(self, release: str) -> None:
        """Take the service away."""
        if self.is_managed:
            self._edgekit(release, "service", "remove", *self._which)
        self._note.unlink(missing_ok=True)

    def _start(self, release: str) -> str | None:
        wanted = self._install_words(release)
        before = self.status(release)
        if self._noted() == {"install": wanted, "done": True} and before["state"] != "not installed":
            words = ["service", "restart", *self._which]
        else:
            self._write_note({"install": wanted, "done": False})
            words = wanted
        done = self._edgekit(release, *words)
        if done.returncode:
            return last_error(done.stderr)
        if words is wanted:
            self._write_note({"install": wanted, "done": True})
            for line in done.stderr.splitlines():
                if "warning: " in line:
                    say(line)
        return self._judge(release, before.get("pid"))

    def _judge(self, release: str, old_pid: int | None) -> str | None:
        """Wait for a first frame of a new process that stays; return what is wrong, None if nothing is."""
        ends_s = time.monotonic() + self._health_s
        seen: tuple[int, float] | None = None
        bad = 0
        while time.monotonic() < ends_s:
            found = self.status(release)
            state, pid = found["state"], found.get("pid")
            if state == "running" and pid and pid != old_pid:
                if seen is None:
                    seen = (pid, time.monotonic())
                if seen[0] == pid and time.monotonic() - seen[1] >= self._settle_s:
                    return None
            # systemd calls a service that is still ending stopped, and a run may take seconds to write its last frame.
            fine = state in ("running", "starting") or (pid is not None and pid == old_pid)
            bad = 0 if fine else bad + (2 if state in _ILL else 1)
            if bad >= _BAD_LOOKS or (seen is not None and (bad or pid != seen[0])):
                return self._why(release, f"{state}, {found.get('last_exit') or 'no exit code'}")
            time.sleep(_POLL_S)
        return self._why(release, f"no frame within {self._health_s:g} s")

    def _why(self, release: str, what: str) -> str:
        done = self._edgekit(release, "service", "logs", *self._which, "--lines", "30", "--json")
        try:
            errors = errors_in(json.loads(done.stdout)["lines"])
        except (ValueError, KeyError, TypeError):
            errors = []
        return f"{what}: {errors[-1]}" if errors else what

    def _noted(self) -> dict[str, Any] | None:
        return self._releases.read(self._note.name)

    def _write_note(self, document: Mapping[str, Any]) -> None:
        write_atomic(self._note, json.dumps(document))

    def _install_words(self, release: str) -> list[str]:
        words = ["service", "install", *self._which, "--folder", str(self._releases.data)]
        if (self._releases.folder / release / "code").is_dir():
            words += ["--env", f"PYTHONPATH={self._releases.link / 'code'}"]
        return [*words, "--", *self.run_options(release)]

    def run_options(self, release: str) -> list[str]:
        """Return the options of `edgekit run` for a release, with paths through the link `current`."""
        # Through the link, so that the service need not change with the release.
        there, here = self._releases.folder / release, self._releases.link
        options = ["--config", str(here / "edgekit.toml"), "--model", str(here / model_name(there))]
        if (there / "detector.onnx").exists():
            options += ["--detector-model", str(here / "detector.onnx")]
        return options

    def _edgekit(self, release: str, *words: str) -> subprocess.CompletedProcess[str]:
        return self._releases.runtime(release).call(words, _TOOL_TIMEOUT_S)
