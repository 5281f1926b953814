"""The folder of the releases of one service.

`~/.local/share/edgekit/deploy/NAME` holds `releases/ID` (model, settings, environment, `release.json`), `current` (a
link to the release that the service runs), `data` (the service's working folder), `pending` (the change in progress)
and `service.json`. Files whose name begins with a dot are incomplete and unused.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgekit.deployed import deploy_folder, unusable
from edgekit.errors import HostError
from edgekit.files import sha256_of, sync, write_atomic
from edgekit.remote.board.runtime import MODEL_NAMES, Runtime
from edgekit.remote.messages import report

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
        """Return the release that `current` links to."""
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
        document = self.read(f"releases/{release}/release.json")
        if document is None or not all(
            name in document and isinstance(document[name], kind) for name, kind in _FIELDS.items()
        ):
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
        model_sha256 = next(files[name][1] for name in MODEL_NAMES if name in files)
        release = f"{max(numbers, default=0) + 1:04d}-{model_sha256[:8]}"
        with self._new_folder(release) as fresh:
            for name, (path, sha256) in files.items():
                _link(path, str(fresh / name))
                if sha256_of(fresh / name) != sha256:
                    raise HostError(f"{name} is damaged on the board's disk: deploy again, and check the disk")
            if plan["environment"]:
                report("linking the environment")
                with open(Path(plan["environment"]) / ".ready") as lock:
                    fcntl.flock(lock, fcntl.LOCK_SH)  # a locked environment is not removed
                    for source, name in ((plan["environment"], "env"), (plan["code"], "code")):
                        shutil.copytree(source, fresh / name, symlinks=True, copy_function=_link)
            about = {
                **plan["about"],
                **_content(plan),
                "created_unix_s": int(time.time()),
                "previous": self.current(),
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
            fresh.unlink(missing_ok=True)
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
        for old in self.ids()[:-keep]:
            if old not in kept:
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
        # From here on nothing starts a release, and the releases have no final names: see `sweep`.
        self.place(None)
        removed = [str(self.folder)] if self.folder.is_dir() else []
        if removed:
            self.folder.rename(self.root / ".releases")
            sync(self.root)
        kept = [path for path in (self.data, settings) if keep_data and path.exists()]
        if not kept:
            shutil.rmtree(self.root)
            for parent in (self.root.parent, self.root.parent.parent):
                with contextlib.suppress(OSError):
                    parent.rmdir()
            return [str(self.root)], []
        gone = [path for path in self.root.iterdir() if path not in kept]
        for path in gone:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        return removed, [str(path) for path in kept]

    def processes(self) -> list[int]:
        """Return the processes whose working folder or command line is in the folder of the service."""
        root = self.root.resolve()
        inside = f"{self.root}/".encode()
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended, or belongs to another user
                command = (process / "cmdline").read_bytes()
                if inside in command or (process / "cwd").readlink().is_relative_to(root):
                    found.append(int(process.name))
        return sorted(found)

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
        """Remove incomplete files of an interrupted change."""
        for stray in [*self.root.glob(".*"), *self.folder.glob(".*")]:
            if stray.is_dir() and not stray.is_symlink():
                shutil.rmtree(stray, ignore_errors=True)
            else:
                stray.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _new_folder(self, release: str) -> Iterator[Path]:
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
    return {
        "files": {name: sha256 for name, (_, sha256) in plan["files"].items()},
        "folders": [plan[key] and Path(plan[key]).name for key in ("environment", "code")],
        "command": plan["command"],
    }


def _link(source: str, target: str) -> str:
    # Hard links: releases share disk space with the cache, and cleaning the cache does not damage them.
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target
