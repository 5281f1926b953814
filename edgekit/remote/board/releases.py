"""The folder of the releases of one service, and the edgekit of a release.

`~/.local/share/edgekit/deploy/NAME` holds `releases/ID` (model, settings, environment, `release.json`), `current` (a
link to the release that the service runs), `data` (the service's working folder), `pending` (the change in progress)
and `service.json`. Files whose name begins with a dot are incomplete and unused.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.deployed import command_of, deploy_folder, unusable
from edgekit.errors import ERROR_PREFIX, HostError
from edgekit.files import sha256_of, sync, write_atomic
from edgekit.remote.board.loader import report

# Names of the model in a release, by its engine.
MODEL_NAMES = ("model.onnx", "model.ncnn")
# Settings that name files which must be on the board before a run.
_FILE_KEYS = ("web-token-file", "webhook-token-file", "mqtt-credentials", "mqtt-ca", "mqtt-cert")
# Required fields and their types: with another type, the list of releases would not be valid and would hide the others.
_FIELDS = {"model": str, "edgekit": str, "created_unix_s": int, "previous": object, "command": object, "files": dict}
_ID = re.compile(r"[0-9]{4,9}-[0-9a-f]{8}")


class Releases:
    """The releases of the service `name`."""

    def __init__(self, name: str) -> None:
        self.root = deploy_folder() / name
        self.folder = self.root / "releases"
        self.data = self.root / "data"
        self.link = self.root / "current"

    def ids(self) -> list[str]:
        """Return all complete releases, the oldest first, sorted by number because the board's clock may be wrong."""
        names = [path.name for path in self.folder.glob("*") if _ID.fullmatch(path.name)]
        return sorted(names, key=lambda name: int(name.partition("-")[0]))

    def current(self) -> str | None:
        """Return the release that the link `current` points to; None if there is no such release."""
        try:
            name = self.link.readlink().name
        except OSError:
            return None
        return name if _ID.fullmatch(name) and (self.folder / name).is_dir() else None

    def about(self, release: str) -> dict[str, Any]:
        """Return the content of a release's `release.json`.

        Raises:
            HostError: The file cannot be read or is not complete.
        """
        document = self.read(f"releases/{release}/release.json") or {}
        for name, kind in _FIELDS.items():
            if name not in document or not isinstance(document[name], kind):
                raise HostError(f"release {release} is damaged: its release.json cannot be read")
        return document

    def runtime(self, release: str) -> Runtime:
        """Return how to call the edgekit of a release; for the current release its path contains the link `current`."""
        home = self.link if self.current() == release else self.folder / release
        return Runtime(self.about(release)["command"], home, self.data)

    def has_current(self, plan: Mapping[str, Any]) -> bool:
        """Return whether the current release can run and is equal to the one that `create` would make."""
        current = self.current()
        if current is None:
            return False
        try:
            about = self.about(current)
            self.check(current)
        except (HostError, OSError):
            return False
        return all(about.get(key) == value for key, value in _content(plan).items())

    def create(self, plan: Mapping[str, Any]) -> str:
        """Make a new release, try it, rename it to its final name, and return the name.

        Args:
            plan: `files` (path and hash of each file, by name), `environment` and `code` (folders to link) or `command`
                (the edgekit installed on the board), `about` (fields for `release.json`), `trial_s`.

        Raises:
            HostError: A file is damaged, or the release does not run.
        """
        numbers = [int(name.partition("-")[0]) for name in self.ids()]
        files = plan["files"]
        model_sha256 = next(sha256 for name, (_, sha256) in files.items() if name in MODEL_NAMES)
        # One more than the highest number, then the beginning of the model's hash.
        release = f"{max(numbers, default=0) + 1:04d}-{model_sha256[:8]}"
        with self._new_folder(release) as fresh:  # has a temporary name until the block succeeds
            for name, (path, sha256) in files.items():
                shutil.copyfile(path, fresh / name)
                if sha256_of(fresh / name) != sha256:
                    Path(path).unlink()  # so that the next deploy sends it again
                    raise HostError(f"{name} is damaged on the board's disk: deploy again, and check the disk")
            if plan["environment"]:
                report("linking the environment")
                for source, name in ((plan["environment"], "env"), (plan["code"], "code")):
                    shutil.copytree(source, fresh / name, symlinks=True, copy_function=_link)
            about = {
                **plan["about"],
                **_content(plan),
                "created_unix_s": int(time.time()),
                "previous": self.current(),  # to which a rollback goes back
            }
            write_atomic(fresh / "release.json", json.dumps(about))
            Runtime(plan["command"], fresh, self.data).try_out(fresh, plan["trial_s"])
        return release

    def place(self, release: str | None) -> None:
        """Let the link `current` point to a release, in one atomic step; None removes the link."""
        if release is None:
            self.link.unlink(missing_ok=True)
        else:
            fresh = self.root / ".current"
            fresh.unlink(missing_ok=True)  # of a call that was interrupted
            fresh.symlink_to(Path("releases") / release)
            fresh.replace(self.link)
        sync(self.root)

    def check(self, release: str) -> None:
        """Check that the files of a release have not changed, and that its edgekit can be called.

        Raises:
            HostError: A file has changed, or the release cannot run.
        """
        for name, sha256 in self.about(release)["files"].items():
            if sha256_of(self.folder / release / name) != sha256:
                raise HostError(f"{name} of release {release} is damaged on the board's disk")
        fault = unusable(self.folder / release)
        if fault is not None:
            raise HostError(f"{fault}. Nothing was changed")

    def remove_old(self, keep: int) -> None:
        """Delete all releases but the newest `keep`, the current one and the one that rollback would switch to."""
        current = self.current()
        kept = {current, self.about(current)["previous"]} if current else set()
        for old in self.ids()[:-keep]:  # `ids` has the oldest first
            if old not in kept:
                # Renamed first: a release with a final name must be complete, also after a power cut.
                old_folder = self.folder / f".old-{old}"
                (self.folder / old).rename(old_folder)
                shutil.rmtree(old_folder, ignore_errors=True)

    def remove_all(self, keep_data: bool) -> tuple[list[str], list[str]]:
        """Delete the folder of the service and its empty parents; return the paths that were deleted, and those kept.

        With `keep_data` the folder `data` and the settings of the current release stay.
        """
        settings = self.root / "edgekit.toml"
        if keep_data and self.current() is not None:
            write_atomic(settings, (self.link / settings.name).read_bytes())
        # After these two steps nothing starts a release, and no release has its final name: if the deletion is
        # interrupted, what is left is unused, and the next call deletes it.
        self.place(None)
        has_releases = self.folder.is_dir()
        if has_releases:
            self.folder.rename(self.root / ".releases")
            sync(self.root)
        kept = [path for path in (self.data, settings) if path.exists()] if keep_data else []
        for path in self.root.iterdir():
            if path not in kept:
                _delete(path)
        if kept:
            deleted = [str(self.folder)] if has_releases else []
            return deleted, [str(path) for path in kept]
        with contextlib.suppress(OSError):  # another service uses the parents
            for folder in (self.root, self.root.parent, self.root.parent.parent):
                folder.rmdir()
        return [str(self.root)], []

    def mark_failed(self, release: str, why: str) -> None:
        """Write the reason why a release failed into its folder; errors of the disk are ignored."""
        with contextlib.suppress(OSError):
            (self.folder / release / "failed").write_text(why)

    def has_failed(self, release: str) -> bool:
        """Return whether a release was marked as failed."""
        return (self.folder / release / "failed").exists()

    def begin(self, release: str, previous: str | None) -> None:
        """Record in `pending` that a switch from `previous` to `release` begins."""
        write_atomic(self.root / "pending", json.dumps({"release": release, "previous": previous}))

    def unfinished(self) -> dict[str, Any] | None:
        """Return the content of `pending`, the change that was begun and not completed; None if there is none."""
        return self.read("pending")

    def end(self) -> None:
        """Write all files to the disk, those of the service too, and remove `pending`: the change is complete."""
        os.sync()
        (self.root / "pending").unlink(missing_ok=True)
        sync(self.root)

    def read(self, name: str) -> dict[str, Any] | None:
        """Return the JSON object in the file `name`; None if the file is missing or not valid."""
        try:
            document = json.loads((self.root / name).read_text())
        except (OSError, ValueError):
            return None
        return document if isinstance(document, dict) else None

    def sweep(self) -> None:
        """Remove incomplete files of an interrupted change; what cannot be deleted stays."""
        for stray in [*self.root.glob(".*"), *self.folder.glob(".*")]:
            with contextlib.suppress(OSError):
                _delete(stray)

    @contextlib.contextmanager
    def _new_folder(self, release: str) -> Iterator[Path]:
        """Yield a folder to fill; if the block succeeds, the folder gets the final name of the release."""
        fresh = self.folder / f".new-{release}"
        fresh.mkdir(mode=0o700)
        try:
            yield fresh
            # Content before name, so that after a power cut a release with its final name is complete. `sync` is faster
            # than an fsync of each of the environment's thousands of files, and Linux waits until all are written.
            os.sync()
            fresh.rename(self.folder / release)
            sync(self.folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


def _content(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of `release.json` by which two releases are equal: files, environment, code and command."""
    folders = [plan["environment"], plan["code"]]  # None if an edgekit that is installed on the board is used
    return {
        "files": {name: sha256 for name, (_, sha256) in plan["files"].items()},
        # The name of such a folder is a hash of its content.
        "folders": [None if folder is None else Path(folder).name for folder in folders],
        "command": plan["command"],
    }


def _delete(path: Path) -> None:
    """Delete a file, a link, or a folder with its content."""
    if path.is_dir() and not path.is_symlink():  # of a link, only the link is deleted
        shutil.rmtree(path)
    else:
        path.unlink()


def _link(source: str, target: str) -> str:
    """Link a file under a second name, or copy it where this is not possible; return the name, as `copytree` wants."""
    # Hard links: releases share disk space with the cache, and cleaning the cache does not damage them.
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


@dataclass(frozen=True)
class Runtime:
    """How to call the edgekit of a release.

    `home` is the folder of the release. `own` is the path of an edgekit that is installed on the board; None to use the
    environment in `home`. Commands run in the folder `data`.
    """

    own: str | None
    home: Path
    data: Path

    def call(self, words: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
        """Run a command and return its result; a timeout counts as exit code 1.

        Raises:
            HostError: The edgekit of the release cannot be called.
        """
        # The beginning of the command line, and PYTHONPATH.
        command, variables = command_of(self.own, self.home)
        try:
            return subprocess.run(
                [*command, *words],
                cwd=self.data,  # the working folder of the service, for relative paths in the settings
                env={**os.environ, "LC_ALL": "C.UTF-8", **variables},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired:
            late = f"did not end within {timeout_s:g} s"
            return subprocess.CompletedProcess(command, returncode=1, stdout="", stderr=late)
        except OSError as error:
            # Resolved, because `home` may be the link `current`, and the reason names the release.
            reason = unusable(self.home.resolve()) or f"{error.strerror}: '{error.filename}'"
            raise HostError(str(reason)) from error

    def try_out(self, release: Path, timeout_s: float) -> None:
        """Read the settings of a release, find the files that they name, load its model and classify one frame.

        Raises:
            HostError: One of these steps failed.
        """
        report("trying the settings and the model")
        settings = tomllib.loads((release / "edgekit.toml").read_text(encoding="utf-8-sig"))
        # With --print-config, they are only checked.
        self._try("settings", timeout_s, "--config", str(release / "edgekit.toml"), "--print-config")
        self._check_files(settings)
        detector = [f"--detector={settings['detector']}"] if "detector" in settings else []
        if (release / "detector.onnx").exists():  # the last of two options counts
            detector.append(f"--detector={release / 'detector.onnx'}")
        # The trial has no camera and no outputs, because the running release uses them.
        model = str(release / model_name(release))
        words = ["--model", model, "--source", "demo", "--max-frames", "1", "--json"]
        # If the detector finds no face in the demo, the model classifies the whole frame.
        for detector_options in (detector, ["--detector=none"]):
            summary = json.loads(self._try("model", timeout_s, *words, *detector_options))
            if summary["faces"]:
                return
        raise HostError("model: no face was classified in a frame of the demo. Nothing was changed")

    def _check_files(self, settings: Mapping[str, Any]) -> None:
        """Check that the files which the settings name are on the board."""
        for key, value in settings.items():
            path = self.data / str(value)  # the working folder of the service, for a relative path
            if key in _FILE_KEYS and not (path.is_file() and os.access(path, os.R_OK)):
                raise HostError(f"settings: {key}: no readable file '{path}': copy it there. Nothing was changed")

    def _try(self, what: str, timeout_s: float, *words: str) -> str:
        """Return the output of `edgekit run` with these options; `what` begins the message of an error."""
        done = self.call(("run", *words), timeout_s)
        if done.returncode < 0:
            raise HostError(f"{what}: the trial was killed by signal {-done.returncode}. Nothing was changed")
        if done.returncode:
            raise HostError(f"{what}: {last_error(done.stderr)}. Nothing was changed")
        return str(done.stdout)


def model_name(release: Path) -> str:
    """Return the name of the model in the folder of a release."""
    return next(name for name in MODEL_NAMES if (release / name).exists())


def last_error(text: str) -> str:
    """Return the last line of an edgekit's stderr without its prefix."""
    lines = text.strip().splitlines() or ["no reason given"]
    return lines[-1].removeprefix(ERROR_PREFIX)


def errors_in(lines: Sequence[str]) -> list[str]:
    """Return the error messages in the lines of a log."""
    return [line.partition(ERROR_PREFIX)[2] for line in lines if ERROR_PREFIX in line]
