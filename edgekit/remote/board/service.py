"""Installs, restarts and checks the systemd service of the current release, with that release's own edgekit."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

from edgekit.boards import call_tool
from edgekit.deployed import unusable
from edgekit.errors import EdgekitError, HostError
from edgekit.files import write_atomic
from edgekit.remote.board.loader import report
from edgekit.remote.board.releases import Releases, errors_in, last_error, model_name

_POLL_S = 0.5
_TOOL_TIMEOUT_S = 120
# A service that is being restarted is briefly in a state that looks like a failure.
_MAX_BAD_POLLS = 4
_FAILED = ("failed", "waiting to restart")


class Service:
    """The systemd service for one folder of releases; `scope` is "user" or "system".

    A started service must process its first frame within `health_s` and then run for `settle_s`.
    """

    def __init__(self, releases: Releases, name: str, scope: str, health_s: float, settle_s: float) -> None:
        self._releases = releases
        self._name = name
        self._scope = scope
        self._which = ["--name", name, f"--{scope}"]  # options of `edgekit service`
        self._health_s = health_s  # longest wait for the first frame
        self._settle_s = settle_s  # how long the run must go on after it
        self._note = releases.root / "service.json"  # written by `_start`

    def refuse_other_scope(self) -> None:
        """Check that an earlier deploy did not install this service with the other scope.

        Raises:
            HostError: It did. There would be two services with the same releases.
        """
        note = self._read_note()
        other = "--system" if self._scope == "user" else "--user"
        if note is not None and other in note["install"]:  # the words of `_install_words`
            raise HostError(f"the service '{self._name}' was deployed with {other}: repeat the command with {other}")

    def refuse_foreign_service(self, release: str) -> None:
        """Check that an installed service of this name was made by deploy.

        A user's deploy also finds a system service: both would open the same camera.

        Raises:
            HostError: The service was not made by deploy.
        """
        if self._read_note() is not None:  # deploy has made the service
            return
        if self.status(release)["state"] != "not installed":
            raise HostError(f"the service '{self._name}' was not made by deploy: choose another --name")
        if self._scope == "user" and self.status(release, "system")["state"] != "not installed":
            raise HostError(
                f"the board has a system service '{self._name}', which was not made by deploy: run "
                "'sudo edgekit service remove' on the board, or choose another --name"
            )

    def status(self, release: str, scope: str | None = None) -> dict[str, Any]:
        """Return the document of `edgekit service status`; `scope` is the service's own by default.

        Raises:
            HostError: The command failed.
        """
        done = self._edgekit(release, "service", "status", "--name", self._name, f"--{scope or self._scope}", "--json")
        # The exit code is not used: it is 1 also if the service does not run.
        try:
            document = json.loads(done.stdout)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            reason = f"'edgekit service status' failed on the board: {last_error(done.stderr)}"
            # If the release cannot run at all, this explains the failure better than the output of the command.
            raise HostError(str(unusable(self._releases.folder / release) or reason))
        return document

    def restart_and_check(self, release: str) -> str | None:
        """Restart the service with the current release and check it; return the reason of a failure, or None."""
        try:
            return self._start(release)
        except (EdgekitError, OSError, ValueError, KeyError) as error:
            # An edgekit that cannot be called is a failed release.
            return str(error)

    def remove(self) -> bool:
        """Stop and remove deploy's service, also if no release can run; return whether it was installed.

        Raises:
            HostError: systemd rejects a step.
        """
        if self._read_note() is None:
            return False
        unit = f"{self._name}.service"
        path = self._systemctl("show", unit, "--property=FragmentPath").strip().removeprefix("FragmentPath=")
        if path:  # else systemd has no unit of this name
            self._systemctl("disable", "--quiet", "--now", unit)
            Path(path).unlink(missing_ok=True)
            self._systemctl("daemon-reload")
            self._systemctl("reset-failed", unit, check=False)  # fails for a unit that has not failed
        self._note.unlink()
        return bool(path)

    def _start(self, release: str) -> str | None:
        """Install and start the service, and check that it runs; return the reason of a failure, or None."""
        words = self._install_words(release)
        before = self.status(release)
        # Before the installation: if that is interrupted, the next call still takes the service as one of deploy's.
        write_atomic(self._note, json.dumps({"install": words}))
        done = self._edgekit(release, *words)
        if done.returncode:
            return last_error(done.stderr)
        for line in done.stderr.splitlines():
            if "warning: " in line:
                report(line)
        return self._check(release, old_pid=before.get("pid"))

    def _check(self, release: str, old_pid: int | None) -> str | None:
        """Wait until a new process has finished a frame and keeps running; return the reason of a failure, or None.

        Until its first frame, a few bad polls in a row are allowed: systemd restarts a service through states that look
        like a failure. From its first frame on, the process must run for `settle_s`, without a bad poll.

        `old_pid` is the process that ran before, if there was one.
        """
        first_frame_until_s = time.monotonic() + self._health_s
        # The new process, from its first frame on; the service then reports "running".
        running_pid: int | None = None
        running_since_s = 0.0
        bad_polls = 0
        while running_pid is not None or time.monotonic() < first_frame_until_s:
            found = self.status(release)
            state, pid = found["state"], found.get("pid")
            is_old_process = pid is not None and pid == old_pid
            if state == "running" and pid and not is_old_process:
                if running_pid is None:
                    running_pid, running_since_s = pid, time.monotonic()
                if pid == running_pid and time.monotonic() - running_since_s >= self._settle_s:
                    return None
            # While the old process ends, which may take seconds, systemd's state is "stopped".
            if state in ("running", "starting") or is_old_process:
                bad_polls = 0
            else:
                bad_polls += 2 if state in _FAILED else 1  # "stopped" is a weaker sign of a failure
            has_ended = running_pid is not None and (bad_polls > 0 or pid != running_pid)
            if has_ended or bad_polls >= _MAX_BAD_POLLS:
                return self._with_logged_error(release, _ended(state, found.get("last_exit")))
            time.sleep(_POLL_S)
        return self._with_logged_error(release, f"no frame within {self._health_s:g} s")

    def _with_logged_error(self, release: str, what: str) -> str:
        """Return `what` happened, with the last error in the log of the service if there is one."""
        done = self._edgekit(release, "service", "logs", *self._which, "--lines", "30", "--json")
        try:
            errors = errors_in(json.loads(done.stdout)["lines"])
        except (ValueError, KeyError, TypeError):
            errors = []
        return f"{what}: {errors[-1]}" if errors else what

    def _read_note(self) -> dict[str, Any] | None:
        """Return the note that deploy left when it installed the service; None if deploy did not install it."""
        return self._releases.read(self._note.name)

    def _install_words(self, release: str) -> list[str]:
        """Return the `edgekit service install` command for a release, without the word edgekit."""
        folder = self._releases.folder / release
        # The paths go through the link `current`, so that the service is the same for every release.
        link = self._releases.link
        words = ["service", "install", *self._which, "--folder", str(self._releases.data)]
        if (folder / "code").is_dir():
            words += ["--env", f"PYTHONPATH={link / 'code'}"]
        words += ["--", "--config", str(link / "edgekit.toml"), "--model", str(link / model_name(folder))]
        if (folder / "detector.onnx").exists():
            words += ["--detector", str(link / "detector.onnx")]
        return words

    def _systemctl(self, *words: str, check: bool = True) -> str:
        """Return the output of a call of systemctl that removes the service; with `check`, a failure is a HostError."""
        scope = ["--user"] if self._scope == "user" else []
        done = call_tool(["systemctl", *scope, *words], _TOOL_TIMEOUT_S)
        if check and (done is None or done.returncode):
            reason = f"did not end within {_TOOL_TIMEOUT_S} s" if done is None else last_error(done.stderr)
            raise HostError(f"the service '{self._name}' cannot be removed: systemctl {words[0]}: {reason}")
        return done.stdout if done else ""  # no result: it is missing or timed out, and `check` false

    def _edgekit(self, release: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Return the result of a command of the release's edgekit."""
        return self._releases.runtime(release).call(words, _TOOL_TIMEOUT_S)


def _ended(state: str, last_exit: str | None) -> str:
    """Return what happened to a run that does not go on."""
    # systemd may have forgotten how a run ended that did not fail; one that failed is in another state.
    if last_exit == "exit code 0" or (last_exit is None and state == "stopped"):
        return (
            "the run ended with exit code 0: use a source without an end, such as a camera, and no max-frames in the "
            "settings"
        )
    if last_exit is None:
        return f"the run ended, and the service is {state}"
    # Such as "exit code 1"; else the name of a signal or of another cause.
    has_exit_code = last_exit[-1:].isdigit()
    return f"the run ended with {last_exit}" if has_exit_code else f"the run was ended ({last_exit})"
