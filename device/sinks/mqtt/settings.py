"""Which broker, as whom, and under which topics."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from edgekit.errors import InputError
from edgekit.files import require_file

_PORTS = {"mqtt": 1883, "mqtts": 8883}
_LONGEST_TOPIC = 200


@dataclass(frozen=True)
class MqttSettings:
    """Everything a connection needs; `topic` is what all topics but Home Assistant's begin with.

    With `tls`, the broker is checked against the system's authorities or those in `ca`. `discovery` announces the
    camera to Home Assistant. Events wait in the file `buffer`, at most `buffer_events` of them.
    """

    host: str
    port: int
    tls: bool
    topic: str
    user: str | None = None
    password: str | None = None
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    discovery: bool = True
    buffer: Path | None = None
    buffer_events: int = 10_000

    def __repr__(self) -> str:
        """Return the address only: a password must not get into a log."""
        return f"MqttSettings({self.host}:{self.port}, {self.topic})"

    @classmethod
    def parse(
        cls,
        url: str,
        credentials: str | None,
        *,
        topic: str | None = None,
        ca: Path | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
        discovery: bool = True,
        buffer: Path | None = None,
        buffer_events: int = 10_000,
    ) -> Self:
        """Return the settings for a broker at `url` with `credentials` of the form user:password.

        Raises:
            InputError: The address, the topic or a file of a certificate cannot be used.
        """
        host, port, tls = _address(url)
        files = ((ca, "certificates of authorities"), (certificate, "certificate"), (key, "key"))
        for path, what in files:
            if path is not None:
                require_file(path, what)
                if not tls:
                    raise InputError(f"MQTT broker '{url}' has no TLS: write mqtts:// to use certificates")
        user, separator, password = (credentials or "").partition(":")
        return cls(
            host=host,
            port=port,
            tls=tls,
            topic=_topic(topic),
            user=user or None,
            password=password if separator else None,
            ca=ca,
            certificate=certificate,
            key=key,
            discovery=discovery,
            buffer=buffer,
            buffer_events=buffer_events,
        )

    @property
    def node(self) -> str:
        """The topic as a name of letters, digits, - and _: Home Assistant's and the buffer's name for this camera."""
        return re.sub(r"[^A-Za-z0-9_-]", "_", self.topic)

    @property
    def client_id(self) -> str:
        """The name the broker knows this client by; the same in every run, so that a stale connection is replaced."""
        digest = hashlib.sha256(f"{socket.gethostname()} {self.topic}".encode()).hexdigest()
        # Brokers need to take no more than 23 letters and digits (MQTT 3.1.1, section 3.1.3.1).
        return f"edgekit{digest[:16]}"

    @property
    def buffer_path(self) -> Path:
        """Where events wait."""
        return self.buffer or _state_folder() / f"mqtt-{self.node}.sqlite"


def _address(url: str) -> tuple[str, int, bool]:
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
        (parts.hostname or "").encode("idna")  # as the resolver will
    except ValueError:
        raise InputError("the MQTT broker's address must look like mqtt://host:1883") from None
    if parts.username is not None or parts.password is not None:
        raise InputError("the MQTT broker's address has a password in it: use --mqtt-credentials FILE")
    if parts.scheme not in _PORTS or not parts.hostname or parts.path.strip("/") or parts.query:
        raise InputError(f"MQTT broker '{url}' must look like mqtt://host:1883, or mqtts://host:8883 for TLS")
    return parts.hostname, port or _PORTS[parts.scheme], parts.scheme == "mqtts"


def _topic(topic: str | None) -> str:
    if topic is None:
        return f"edgekit/{re.sub(r'[^A-Za-z0-9_.-]', '_', socket.gethostname()) or 'camera'}"
    if not topic or len(topic) > _LONGEST_TOPIC or topic[0] in "$/" or topic[-1] == "/" or not topic.isprintable():
        raise InputError(f"MQTT topic '{topic}' must be a name such as edgekit/door")
    if "+" in topic or "#" in topic:
        raise InputError(f"MQTT topic '{topic}' has a + or #: those are for those who listen")
    return topic


def _state_folder() -> Path:
    # systemd gives a service its folder by this name, several of them separated by colons.
    if given := os.environ.get("STATE_DIRECTORY"):
        return Path(given.split(":")[0])
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "edgekit"
