"""Commands to a run by MQTT: pause, resume and snapshot, each only if it is allowed."""

from __future__ import annotations

from collections.abc import Callable, Collection

from edgekit.device.controls import Controls

IGNORED = "ignored"
# Longer than any command; nothing of a longer payload is read.
_MAX_BYTES = 32


class Commands:
    """Executes the commands that arrive at the topic of a run; the rest is counted and reported once per reason.

    Attributes:
        allowed: The allowed commands.
        controls: What the commands act on.
    """

    def __init__(
        self,
        allowed: Collection[str],
        controls: Controls,
        take_snapshot: Callable[[], None] | None,
        notify: Callable[[str], None],
    ) -> None:
        """Allow some commands.

        Args:
            allowed: Their names: "pause" (which also allows `resume`) and "snapshot".
            controls: Pauses and resumes the run, and receives the counts.
            take_snapshot: Requests a snapshot, without waiting for it; needed if it is allowed.
            notify: Called with one line for the first ignored message of each kind, from another thread.
        """
        self.allowed = frozenset(allowed)
        self.controls = controls
        self._notify = notify
        self._reported: set[str] = set()
        self._actions: dict[bytes, Callable[[], None]] = {}
        if "pause" in allowed:
            self._actions |= {b"pause": controls.pause, b"resume": controls.resume}
        if "snapshot" in allowed and take_snapshot is not None:
            self._actions[b"snapshot"] = take_snapshot

    def receive(self, payload: bytes, retained: bool) -> None:
        """Execute a command, or count and report why it is not executed.

        `retained` is true for a message that the broker stored before this run subscribed: it is not a command to this
        run, and is ignored.
        """
        action = self._actions.get(payload)
        if retained:
            self._ignore("a retained message")
        elif action is None:
            shown = f" {payload.decode('utf-8', 'replace')!a}" if len(payload) <= _MAX_BYTES else ""
            self._ignore("a message that is no allowed command", shown)
        elif payload == b"snapshot" and self.controls.paused:
            self._ignore("snapshot, because the run is paused")
        else:
            self.controls.commands[payload.decode()] += 1
            action()

    def _ignore(self, reason: str, shown: str = "") -> None:
        self.controls.commands[IGNORED] += 1
        if reason not in self._reported:
            self._reported.add(reason)
            self._notify(f"MQTT: ignored {reason}{shown}; further ones are only counted")
