"""Runs on the board, sent as text: puts a release into place, watches it, and takes it back if it does not do well.

Standard library only, and it imports nothing of edgekit. Its one argument is a JSON object, see `main`. A hang-up does
not end it: what it has begun it completes, whether anybody listens or not. Its folder is
`~/.local/share/edgekit/deploy/NAME`: `releases/ID` (model, settings, environment, `release.json`), `current` (a link to
one of them, which the service runs from), `data` (where the service runs and writes), `pending` and `service.json`.

What a cut (SIGKILL, power) leaves behind after each step, and who mends it:

1. growing `releases/.new-ID`: nothing has changed; the next call removes it.
2. tried, synced and renamed to `releases/ID`: a whole release that nobody uses.
3. `pending` names it and its predecessor: as before.
4. `current` renamed onto it: the predecessor's process runs on; any start, by hand, at boot or after a failure, runs
   the new release, which has shown that it loads and classifies. The next call restarts the service and judges it.
5. service told to restart, one message to its keeper (systemd or the supervisor), so there is no half of it: the new
   release runs. The next call judges it, and goes back to the predecessor if it is ill.
6. ill, `current` renamed back: the predecessor runs after any start; the next call restarts it.
7. `pending` removed: done. Old releases are renamed before they are deleted, so that no half of one is taken for whole.

At no step is a release changed that `current` names, and the predecessor is never deleted before the next release.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

_ID = re.compile(r"[0-9]{4,9}-[0-9a-f]{8}")
_POLL_S = 0.5
_TOOL_TIMEOUT_S = 120
# A service that is being restarted is between two states for a moment.
_BAD_LOOKS = 4
_ILL = ("failed", "waiting to restart")
_TRIAL_KEYS = ("detector", "detector-model", "detector-size")


class ReleaseError(Exception):
    """One line for people."""


class Releases:
    """The releases of one service. Its plan holds `name`, `scope`, and how long to wait, in seconds."""

    def __init__(self, plan: dict[str, Any]) -> None:
        data = os.environ.get("XDG_DATA_HOME", "")
        base = Path(data) if data.startswith("/") else Path.home() / ".local/share"
        self.root = base / "edgekit/deploy" / plan["name"]
        self.folder = self.root / "releases"
        self.data = self.root / "data"
        self.link = self.root / "current"
        self.plan = plan
        self.scope = plan["scope"] or ("system" if os.geteuid() == 0 else "user")

    def ids(self) -> list[str]:
        """Return all whole releases, the oldest first; their numbers say so, a board's clock may not."""
        names = [path.name for path in self.folder.glob("*") if _ID.fullmatch(path.name)]
        return sorted(names, key=lambda name: int(name.partition("-")[0]))

    def current(self) -> str | None:
        """Return the release that the link names."""
        try:
            name = self.link.readlink().name
        except OSError:
            return None
        return name if _ID.fullmatch(name) and (self.folder / name).is_dir() else None

    def about(self, release: str) -> dict[str, Any]:
        """Return what was written down of a release."""
        document: dict[str, Any] = json.loads((self.folder / release / "release.json").read_text())
        return document

    def grow(self) -> str:
        """Make a new release, try it, and give it its name."""
        numbers = [int(name.partition("-")[0]) for name in self.ids()]
        files = self.plan["files"]
        release = f"{max(numbers, default=0) + 1:04d}-{files['model.onnx'][1][:8]}"
        fresh = self.folder / f".new-{release}"
        fresh.mkdir(mode=0o700)
        try:
            for name, (path, sha256) in files.items():
                _link(path, str(fresh / name))
                if _sha256(fresh / name) != sha256:
                    Path(path).unlink()  # what is there is not sent again
                    raise ReleaseError(f"{name} is damaged on the board's disk: deploy again, and check the disk")
            if self.plan["environment"]:
                _say("linking the environment")
                with open(Path(self.plan["environment"]) / ".ready") as mark:
                    fcntl.flock(mark, fcntl.LOCK_SH)  # nobody cleans it up meanwhile
                    for source, name in ((self.plan["environment"], "env"), (self.plan["code"], "code")):
                        shutil.copytree(source, fresh / name, symlinks=True, copy_function=_link)
            about = {
                **self.plan["about"],
                "created_unix_s": int(time.time()),
                "previous": self.current(),
                "command": self.plan["command"],
                "files": {name: sha256 for name, (_, sha256) in files.items()},
            }
            _write(fresh / "release.json", about)
            self._try(fresh)
            for path in (*(fresh / name for name in files), fresh):
                _sync(path)
            os.sync()  # the environment's thousands of files
            fresh.rename(self.folder / release)
            _sync(self.folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        return release

    def activate(self, release: str) -> str | None:
        """Switch to a release and judge it; return why it is ill, None if it is well.

        If it is ill, what ran before runs again.
        """
        previous = self.current()
        if self._service() is None and self.status(release)["state"] != "not installed":
            raise ReleaseError(f"its service '{self.plan['name']}' was not made by deploy: choose another --name")
        _write(self.root / "pending", {"release": release, "previous": previous})
        self._switch(release)
        _say(f"switched to {release}, waiting for its first frame")
        ill = self._start_and_judge(release)
        if ill is not None:
            self._go_back(release, previous, ill)
        self._settled()
        return ill

    def recover(self) -> None:
        """Bring what a cut left undone to an end: judge the release in place, go back if it is ill."""
        for stray in [*self.folder.glob(".new-*"), *self.folder.glob(".old-*")]:
            shutil.rmtree(stray, ignore_errors=True)
        try:
            pending = json.loads((self.root / "pending").read_text())
        except (OSError, ValueError):
            return
        current = self.current()
        if current is not None:
            _say(f"an earlier call was cut off: looking whether {current} does well")
            ill = self._start_and_judge(current)
            if ill is not None and current == pending["release"]:
                self._go_back(current, pending["previous"], ill)
        self._settled()

    def forget(self, keep: int) -> None:
        """Delete all but the newest `keep` releases, the current one and the one that rollback would take."""
        current = self.current()
        needed = {current, self.about(current)["previous"]} if current else set()
        for old in self.ids()[:-keep]:
            if old not in needed:
                doomed = self.folder / f".old-{old}"
                (self.folder / old).rename(doomed)
                shutil.rmtree(doomed, ignore_errors=True)

    def check(self, release: str) -> None:
        """Refuse a release whose files are not what they were."""
        for name, sha256 in self.about(release)["files"].items():
            if _sha256(self.folder / release / name) != sha256:
                raise ReleaseError(f"{name} of release {release} is damaged on the board's disk")

    def listed(self) -> dict[str, Any]:
        """Return all releases and how the service does."""
        current = self.current()
        rows = [
            {**self.about(name), "release": name, "failed": (self.folder / name / "failed").exists()}
            for name in self.ids()
        ]
        cut = (self.root / "pending").exists()
        return {"releases": rows, "current": current, "cut": cut, "service": self.status(current) if current else None}

    def status(self, release: str) -> dict[str, Any]:
        """Return what `edgekit service status` says."""
        done = self._edgekit(release, "service", "status", *self._which(), "--json")
        try:
            document = json.loads(done.stdout)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise ReleaseError(f"'edgekit service status' on the board says: {_last(done.stderr)}")
        return document

    def _switch(self, release: str) -> None:
        fresh = self.root / ".current"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(Path("releases") / release)
        fresh.replace(self.link)
        _sync(self.root)

    def _go_back(self, release: str, previous: str | None, why: str) -> None:
        _say(f"{release}: {why}")
        with contextlib.suppress(OSError):
            (self.folder / release / "failed").write_text(why)
        if previous is None:
            self._edgekit(release, "service", "remove", *self._which())
            (self.root / "service.json").unlink(missing_ok=True)
            self.link.unlink(missing_ok=True)
            _sync(self.root)
            return
        _say(f"going back to {previous}")
        self._switch(previous)
        ill = self._start_and_judge(previous)
        if ill is not None:
            raise ReleaseError(f"{release} did not do well, and {previous}, which is back in place, says: {ill}")

    def _settled(self) -> None:
        (self.root / "pending").unlink(missing_ok=True)
        _sync(self.root)

    def _start_and_judge(self, release: str) -> str | None:
        try:
            return self._start(release)
        except (ReleaseError, OSError, ValueError, KeyError) as error:
            # An edgekit that does not even answer is an ill release.
            return str(error)

    def _start(self, release: str) -> str | None:
        wanted = self._install_words(release)
        before = self.status(release)
        if self._service() == {"install": wanted, "done": True} and before["state"] != "not installed":
            words = ["service", "restart", *self._which()]
        else:
            _write(self.root / "service.json", {"install": wanted, "done": False})
            words = wanted
        done = self._edgekit(release, *words)
        if done.returncode:
            return _last(done.stderr)
        if words is wanted:
            _write(self.root / "service.json", {"install": wanted, "done": True})
            for line in done.stderr.splitlines():
                if "warning: " in line:
                    _say(line)
        return self._judge(release, before.get("pid"))

    def _judge(self, release: str, old_pid: int | None) -> str | None:
        """Wait for a first frame of a new process that stays; return what is wrong, None if nothing is."""
        ends_s = time.monotonic() + self.plan["health_s"]
        seen: tuple[int, float] | None = None
        bad = 0
        while time.monotonic() < ends_s:
            found = self.status(release)
            state, pid = found["state"], found.get("pid")
            if state == "running" and pid and pid != old_pid:
                if seen is None:
                    seen = (pid, time.monotonic())
                if seen[0] == pid and time.monotonic() - seen[1] >= self.plan["settle_s"]:
                    return None
            # systemd calls a service that is still ending stopped, and a run may take seconds to write its last frame.
            fine = state in ("running", "starting") or (pid is not None and pid == old_pid)
            bad = 0 if fine else bad + (2 if state in _ILL else 1)
            if bad >= _BAD_LOOKS or (seen is not None and (bad or pid != seen[0])):
                return self._why(release, f"{state}, {found.get('last_exit') or 'no exit code'}")
            time.sleep(_POLL_S)
        return self._why(release, f"no frame within {self.plan['health_s']:g} s")

    def _why(self, release: str, what: str) -> str:
        done = self._edgekit(release, "service", "logs", *self._which(), "--lines", "30", "--json")
        try:
            lines = [line for line in json.loads(done.stdout)["lines"] if "edgekit: error: " in line]
        except (ValueError, KeyError, TypeError):
            lines = []
        return f"{what}: {lines[-1].partition('edgekit: error: ')[2]}" if lines else what

    def _service(self) -> dict[str, Any] | None:
        try:
            document: dict[str, Any] = json.loads((self.root / "service.json").read_text())
        except (OSError, ValueError):
            return None
        return document

    def _install_words(self, release: str) -> list[str]:
        # Through the link, so that the service need not change with the release.
        there, here = self.folder / release, self.link
        words = ["service", "install", *self._which(), "--folder", str(self.data)]
        if (there / "code").is_dir():
            words += ["--env", f"PYTHONPATH={here / 'code'}"]
        words += ["--", "--config", str(here / "edgekit.toml"), "--model", str(here / "model.onnx")]
        if (there / "detector.onnx").exists():
            words += ["--detector-model", str(here / "detector.onnx")]
        return words

    def _which(self) -> list[str]:
        return ["--name", self.plan["name"], f"--{self.scope}"]

    def _edgekit(self, release: str, *words: str) -> subprocess.CompletedProcess[str]:
        own = self.about(release)["command"]
        home = self.link if self.current() == release else self.folder / release
        return self._run(own, home, words, _TOOL_TIMEOUT_S)

    def _run(
        self, own: str | None, home: Path, words: tuple[str, ...], timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "LC_ALL": "C.UTF-8"}
        command = [own] if own else [str(home / "env/bin/python"), "-P", "-m", "edgekit.cli"]
        if not own:
            environment["PYTHONPATH"] = str(home / "code")
        try:
            return subprocess.run(
                [*command, *words],
                cwd=self.data,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, 1, "", f"no end within {timeout_s:g} s")

    def _try(self, fresh: Path) -> None:
        """Read the settings, load the model and classify one frame, before anything changes."""
        _say("trying the settings and the model")
        settings = tomllib.loads((fresh / "edgekit.toml").read_text())
        self._tried(fresh, "settings", "--config", str(fresh / "edgekit.toml"), "--print-config")
        detector = [f"--{key}={settings[key]}" for key in _TRIAL_KEYS if key in settings]
        if (fresh / "detector.onnx").exists():
            detector.append(f"--detector-model={fresh / 'detector.onnx'}")
        # Neither camera nor outputs: the release that runs has them.
        for finding in (detector, ["--detector=none"]):
            words = ["--model", str(fresh / "model.onnx"), "--source", "demo", "--max-frames", "1", "--json"]
            told = json.loads(self._tried(fresh, "model", *words, *finding))
            if told["faces"]:
                return
        raise ReleaseError("model: one frame was run, and no face came out of it")

    def _tried(self, fresh: Path, what: str, *words: str) -> str:
        done = self._run(self.plan["command"], fresh, ("run", *words), self.plan["trial_s"])
        if done.returncode < 0:
            raise ReleaseError(f"{what}: the trial died of signal {-done.returncode}. Nothing was changed")
        if done.returncode:
            raise ReleaseError(f"{what}: {_last(done.stderr)}. Nothing was changed")
        return str(done.stdout)


def main(argument: str) -> dict[str, Any]:
    """Do the plan's `action`: deploy, rollback (`to` a release or the one before), releases; return what came of it."""
    plan: dict[str, Any] = json.loads(argument)
    releases = Releases(plan)
    if plan["action"] == "releases":
        return releases.listed()
    if plan["action"] == "deploy":
        for folder in (releases.folder, releases.data):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    elif not releases.folder.is_dir():
        raise ReleaseError(f"nothing was deployed there as '{plan['name']}'")
    with open(releases.root / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ReleaseError("another deploy or rollback is under way there: wait for it") from None
        releases.recover()
        before = releases.current()
        target = releases.grow() if plan["action"] == "deploy" else _rollback_target(releases, plan["to"])
        ill = releases.activate(target)
        if plan["action"] == "deploy":
            releases.forget(plan["keep"])
    return {"release": target, "before": before, "current": releases.current(), "error": ill}


def _rollback_target(releases: Releases, wanted: str | None) -> str:
    current = releases.current()
    target = wanted or (releases.about(current)["previous"] if current else None)
    if target is None:
        raise ReleaseError("there is no release before the current one")
    if target not in releases.ids():
        raise ReleaseError(f"there is no release {target!r}: 'edgekit releases' lists them")
    if target == current:
        raise ReleaseError(f"release {target} is the current one")
    releases.check(target)
    return target


def _link(source: str, target: str) -> str:
    # Releases and the cache share their files: no space for a second copy, and cleaning the cache takes none away.
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def _write(path: Path, document: dict[str, Any]) -> None:
    fresh = path.with_name(f".{path.name}.new")
    with open(fresh, "w") as stream:
        json.dump(document, stream)
        stream.flush()
        os.fsync(stream.fileno())
    fresh.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sha256(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _last(text: str) -> str:
    lines = text.strip().splitlines() or ["no reason given"]
    return lines[-1].removeprefix("edgekit: error: ")


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # nobody may be listening any more
        print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        came = main(sys.argv[1])
    except (ReleaseError, OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
        _say(str(error))
        sys.exit(1)
    with contextlib.suppress(OSError):
        print(json.dumps(came), flush=True)
