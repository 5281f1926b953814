"""What a run offers to its sinks: accounts of their items, their common end, and links to each other.

Each item that an output receives is written, dropped for a reason, or waiting.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import InputError

if TYPE_CHECKING:
    from edgekit.contract import Contract
    from edgekit.device.annotate import Hide
    from edgekit.device.controls import Controls
    from edgekit.device.frame import Source
    from edgekit.device.region import Region
    from edgekit.device.sink import Sink
    from edgekit.device.sinks.clip_writer import ClipWriter
    from edgekit.device.sinks.clips import PacketTap
    from edgekit.device.sinks.disk_reserve import DiskReserve
    from edgekit.device.sinks.events import Event
    from edgekit.device.sinks.monitor import Monitor
    from edgekit.device.sinks.outputs import OutputOptions
    from edgekit.device.sinks.snapshots import SnapshotWriter
    from edgekit.device.teach.session import TeachSession
    from edgekit.device.teach.taught_file import TaughtFile
    from edgekit.device.zones import Zone


_REASONS = {
    errno.ENOSPC: "disk full",
    errno.EDQUOT: "disk full",
    errno.EROFS: "disk read-only",
    errno.ENOENT: "folder missing",
    errno.ENOTDIR: "folder missing",
    errno.EEXIST: "folder missing",
}


class Account:
    """Counts of one kind of item of one sink, such as the events of MQTT. Any thread may change or read them.

    The sink calls `produce` when it receives an item, and later either `write` or `drop`. `waiting` is the rest.

    Example:
        >>> account = Account("jsonl")
        >>> account.produce()
        >>> account.drop("disk full")
        >>> account.as_document()
        {'produced': 1, 'written': 0, 'dropped': {'disk full': 1}, 'waiting': 0}
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = threading.Lock()
        self._produced = 0
        self._written = 0
        self._dropped: Counter[str] = Counter()
        self._closed = False  # `close` was called: later counts have no effect

    def produce(self, count: int = 1) -> None:
        """Count items that the sink received, or found waiting in a buffer of an earlier run."""
        with self._lock:
            if not self._closed:
                self._produced += count

    def write(self, count: int = 1) -> None:
        """Count items that are stored, or that the receiver confirmed."""
        with self._lock:
            if not self._closed:
                self._written += count

    def drop(self, reason: str, count: int = 1) -> None:
        """Count items that are lost, by a short reason such as "disk full"."""
        with self._lock:
            if count and not self._closed:
                self._dropped[reason] += count

    def close(self, reason: str) -> None:
        """Count all waiting items as dropped for `reason`, for a sink whose items do not outlive the run.

        Later counts have no effect: a thread that was not waited for may still finish its work.
        """
        with self._lock:
            if waiting := self._waiting():
                self._dropped[reason] += waiting
            self._closed = True

    @property
    def waiting(self) -> int:
        """Number of items that are neither written nor dropped."""
        with self._lock:
            return self._waiting()

    @property
    def lost(self) -> int:
        """Number of dropped items."""
        with self._lock:
            return self._dropped.total()

    def as_document(self) -> dict[str, Any]:
        """Return the counts ready for JSON."""
        with self._lock:
            return {
                "produced": self._produced,
                "written": self._written,
                "dropped": dict(self._dropped),
                "waiting": self._waiting(),
            }

    def describe(self) -> str:
        """Return the counts as text, such as "jsonl 97 of 100 written, 3 dropped (3 disk full)"."""
        with self._lock:
            total = "" if self._written == self._produced else f" of {self._produced}"
            reasons = ", ".join(f"{count} {reason}" for reason, count in self._dropped.most_common())
            dropped = f", {self._dropped.total()} dropped ({reasons})" if reasons else ""
            waiting = f", {self._waiting()} waiting" if self._waiting() else ""
            return f"{self.name} {self._written}{total} written{dropped}{waiting}"

    def _waiting(self) -> int:
        """Return `waiting`. The caller holds the lock."""
        return self._produced - self._written - self._dropped.total()


def loss_reason(error: BaseException) -> str:
    """Return the reason of a failed write for `Account.drop`, such as "disk full" or "input/output error"."""
    if isinstance(error, (KeyboardInterrupt, SystemExit)):
        return "end of the run"
    # A StorageError has the operating system's error as its cause.
    cause = error if isinstance(error, OSError) else error.__cause__
    if not isinstance(cause, OSError):
        return type(error).__name__
    return _REASONS.get(cause.errno or 0) or (cause.strerror or type(cause).__name__).lower()


def state_folder() -> Path:
    """Return the folder for what outlives a run: that of the service, or that of the user.

    Raises:
        InputError: There is neither.
    """
    # systemd sets this variable for services; several folders are separated by colons.
    if folders := os.environ.get("STATE_DIRECTORY"):
        return Path(folders.split(":")[0])
    import platformdirs

    try:
        return platformdirs.user_state_path("edgekit")
    except RuntimeError:
        raise InputError("there is no home folder: set STATE_DIRECTORY") from None


class Shutdown:
    """The common end of all outputs of a run: the first one that is closed ends all of them, within one time limit."""

    def __init__(self, limit_s: float = 1.2) -> None:
        self._limit_s = limit_s
        self._ends: list[Callable[[], None]] = []
        self._until_s: float | None = None

    def add(self, end: Callable[[], None]) -> None:
        """Call `end` when the end begins; it must not wait."""
        self._ends.append(end)

    def begin(self) -> None:
        """Begin the end; further calls do nothing."""
        if self._until_s is None:
            self._until_s = time.monotonic() + self._limit_s
            for end in self._ends:
                end()

    @property
    def left_s(self) -> float:
        """Seconds until the time limit."""
        until_s = time.monotonic() + self._limit_s if self._until_s is None else self._until_s
        return max(0.0, until_s - time.monotonic())


@dataclass(frozen=True, kw_only=True)
class OutputContext:
    """What a run offers to outputs, also to those that begin before the source is open.

    Attributes:
        rules: The options that all outputs share.
        notify: Called with one line that the user should read, possibly from another thread.
        say: Called with one line of the command's output, possibly from another thread.
        accounts: Counts of all outputs, in the order of their creation.
        shutdown: The common end of the outputs.
    """

    rules: OutputOptions
    notify: Callable[[str], None]
    say: Callable[[str], None] = print
    accounts: list[Account] = field(default_factory=list)
    shutdown: Shutdown = field(default_factory=Shutdown)

    def account(self, name: str) -> Account:
        """Return a new account, which is one of the run's."""
        self.accounts.append(Account(name))
        return self.accounts[-1]

    def reserve(self, place: Path, share: float) -> DiskReserve:
        """Return the reserve of the disk of a file or folder; `share` is one of those of `disk_reserve`."""
        from edgekit.device.sinks.disk_reserve import DiskReserve

        return DiskReserve(place, share, self.rules.disk_reserve)


@dataclass
class SinkLinks:
    """What sinks of one run offer each other.

    Attributes:
        outlets: Functions that take an event without waiting for its delivery.
        hold_s: How long a label must persist to count, of --event-hold.
        snapshots: The images of events and of commands; None without --event-snapshots.
        sends_snapshots: Whether receivers of events get the images, too.
        clips: The videos of events; None without --event-clips.
        contract: The contract of the model that a sink has put in the place of the run's; None: the run's is in use.
        teaching: The session that the web page offers.
    """

    outlets: list[Callable[[Event], object]] = field(default_factory=list)
    hold_s: float = 0.0
    snapshots: SnapshotWriter | None = None
    sends_snapshots: bool = False
    clips: ClipWriter | None = None
    contract: Contract | None = None
    teaching: TeachSession | None = None


@dataclass(frozen=True, kw_only=True)
class RunContext(OutputContext):
    """What a run offers to its sinks.

    Attributes:
        source: The opened source.
        contract: The contract of the model.
        controls: Pauses and commands.
        monitor: The current state of the run.
        recogniser: Returns the function that classifies a picture which a client posts; None: none are accepted.
        recorder: The sink of --record, which the camera uses already.
        tap: Delivers the camera's own video to --event-clips; None if the clips do not use it.
        use_model: Lets the run classify with another model file from its next frame on, and returns its contract.
        taught: The file of the taught model of --teach.
        roi: The region of interest of the options.
        zones: The zones of the options.
        excluding: Flags in effect that exclude faces from the results, such as --roi.
        links: What sinks offer each other.
    """

    source: Source
    contract: Contract
    controls: Controls
    monitor: Monitor
    recogniser: Callable[[], Any] | None = None
    recorder: Sink | None = None
    tap: PacketTap | None = None
    use_model: Callable[[Path], Contract] | None = None
    taught: TaughtFile | None = None
    roi: Region | None = None
    zones: Sequence[Zone] = ()
    excluding: Sequence[str] = ()
    links: SinkLinks = field(default_factory=SinkLinks)

    @property
    def contract_in_use(self) -> Contract:
        """The contract of the model that classifies now: the run's, or one that was taught meanwhile."""
        return self.links.contract or self.contract

    def check_labels(self, flag: str, labels: Iterable[str]) -> None:
        """Raise InputError if a label that is given as `flag` is not one of the model."""
        known = self.contract.labels
        for label in labels:
            if label not in known:
                raise InputError(f"{flag} '{label}' is not a label of the model: choose from {', '.join(known)}")

    def blur(self) -> Hide:
        """Return the function that one sink calls for each frame, and which returns the boxes to hide in it.

        Raises:
            InputError: The model classifies whole images, so that no face is detected.
        """
        from edgekit.device.annotate import FaceBlur, hide_nothing
        from edgekit.device.frame import presentation_time_s

        if not self.rules.blur_faces:
            return hide_nothing
        if self.contract.subject == "image":
            raise InputError(
                "--blur-faces needs the face detector, which a model of whole images does not use: leave it out"
            )
        return FaceBlur(presentation_time_s(self.source)).update
