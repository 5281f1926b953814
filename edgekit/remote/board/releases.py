"""The folder of one service's releases: what is whole, what is in place, what is kept.

`~/.local/share/edgekit/deploy/NAME` holds `releases/ID` (model, settings, environment, `release.json`), `current` (a
link to one of them, which the service runs from), `data` (where the service runs and writes), `pending` (what is being
changed to what) and `service.json`. Names in it that begin with a dot are not whole and belong to nobody.
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

from edgekit.errors import HostError
from edgekit.files import sha256_of, sync, write_atomic
from edgekit.remote.board.runtime import MODEL_NAMES, Runtime, say

_ABOUT = {"model", "edgekit", "created_unix_s", "previous", "command", "files"}
_ID = re.compile(r"[0-9]{4,9}-[0-9a-f]{8}")


class Releases:
    """The releases of the service of a name."""

    def __init__(self, name: str) -> None:
        data = os.environ.get("XDG_DATA_HOME", "")
        base = Path(data) if data.startswith("/") else Path.home() / ".local/share"
        self.root = base / "edgekit/deploy" / name
        self.folder = self.root / "releases"
        self.data = self.root / "data"
        self.link = self.root / "current"

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
        """Return what was written down of a release.

        Raises:
            HostError: It cannot be read any more.
        """
        document = self.read(f"releases/{release}/release.json")
        if document is None or not document.keys() >= _ABOUT:
            raise HostError(f"release {release} is damaged: its release.json cannot be read")
        return document

    def runtime(self, release: str) -> Runtime:
        """Return the edgekit of a release, through the link where it names that."""
        home = self.link if self.current() == release else self.folder / release
        return Runtime(self.about(release)["command"], home, self.data)

    def grow(self, plan: Mapping[str, Any]) -> str:
        """Make a new release, try it, and give it its name.

        Args:
            plan: `files` (name → the file's path and hash), `environment` and `code` (folders to be linked) or
                `command` (the board's own edgekit), `about` (what is written down), `trial_s`.

        Raises:
            HostError: A file is damaged, or the release does not run.
        """
        numbers = [int(name.partition("-")[0]) for name in self.ids()]
        files = plan["files"]
        model_sha256 = next(files[name][1] for name in MODEL_NAMES if name in files)
        release = f"{max(numbers, default=0) + 1:04d}-{model_sha256[:8]}"
        with self._growing(release) as fresh:
            for name, (path, sha256) in files.items():
                _link(path, str(fresh / name))
                if sha256_of(fresh / name) != sha256:
                    Path(path).unlink()  # what is there is not sent again
                    raise HostError(f"{name} is damaged on the board's disk: deploy again, and check the disk")
            if plan["environment"]:
                say("linking the environment")
                with open(Path(plan["environment"]) / ".ready") as mark:
                    fcntl.flock(mark, fcntl.LOCK_SH)  # nobody cleans it up meanwhile
                    for source, name in ((plan["environment"], "env"), (plan["code"], "code")):
                        shutil.copytree(source, fresh / name, symlinks=True, copy_function=_link)
            about = {
                **plan["about"],
                "created_unix_s": int(time.time()),
                "previous": self.current(),
                "command": plan["command"],
                "files": {name: sha256 for name, (_, sha256) in files.items()},
            }
            write_atomic(fresh / "release.json", json.dumps(about))
            Runtime(plan["command"], fresh, self.data).try_out(fresh, plan["trial_s"])
        return release

    def place(self, release: str | None) -> None:
        """Have the link name a release, whatever happens meanwhile; None: no release."""
        if release is None:
            self.link.unlink(missing_ok=True)
        else:
            fresh = self.root / ".current"
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(Path("releases") / release)
            fresh.replace(self.link)
        sync(self.root)

    def check(self, release: str) -> None:
        """Refuse a release whose files are not what they were.

        Raises:
            HostError: They are not.
        """
        for name, sha256 in self.about(release)["files"].items():
            if sha256_of(self.folder / release / name) != sha256:
                raise HostError(f"{name} of release {release} is damaged on the board's disk")

    def forget(self, keep: int) -> None:
        """Delete all but the newest `keep` releases, the current one and the one that rollback would take."""
        current = self.current()
        spared = {current, self.about(current)["previous"]} if current else set()
        for old in self.ids()[:-keep]:
            if old not in spared:
                doomed = self.folder / f".old-{old}"
                (self.folder / old).rename(doomed)
                shutil.rmtree(doomed, ignore_errors=True)

    def mark_failed(self, release: str, why: str) -> None:
        """Remember that a release did not do well; no reason to fail."""
        with contextlib.suppress(OSError):
            (self.folder / release / "failed").write_text(why)

    def begin(self, release: str, previous: str | None) -> None:
        """Write down what is to be changed to what, before it is."""
        write_atomic(self.root / "pending", json.dumps({"release": release, "previous": previous}))

    def begun(self) -> dict[str, Any] | None:
        """Return the change that was begun and not ended."""
        return self.read("pending")

    def end(self) -> None:
        """Say that the change is over; what it wrote, the service's own files too, is on the disk by then."""
        os.sync()
        (self.root / "pending").unlink(missing_ok=True)
        sync(self.root)

    def read(self, name: str) -> dict[str, Any] | None:
        """Return a document in the folder, None if there is none."""
        try:
            document = json.loads((self.root / name).read_text())
        except (OSError, ValueError):
            return None
        return document if isinstance(document, dict) else None

    def sweep(self) -> None:
        """Remove what a cut left half done."""
        for stray in [*self.root.glob(".*"), *self.folder.glob(".*")]:
            if stray.is_dir() and not stray.is_symlink():
                shutil.rmtree(stray, ignore_errors=True)
            else:
                stray.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _growing(self, release: str) -> Iterator[Path]:
        fresh = self.folder / f".new-{release}"
        fresh.mkdir(mode=0o700)
        try:
            yield fresh
            # Content before name: after a power cut a release that has its name is whole. All at once, for the
            # environment's thousands of files; Linux waits until they are written.
            os.sync()
            fresh.rename(self.folder / release)
            sync(self.folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


def _link(source: str, target: str) -> str:
    # Releases and the cache share their files: no space for a second copy, and cleaning the cache takes none away.
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target
