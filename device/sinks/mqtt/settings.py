"""Settings of the connection to an MQTT broker."""

from __future__ import annotations

import hashlib
import re
import socket
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from edgekit.errors import InputError
from edgekit.files import require_file, state_folder

_PORTS = {"mqtt": 1883, "mqtts": 8883}
_MAX_TOPIC_CHARS = 200


@dataclass(frozen=True)
class MqttSettings:
    """Address, credentials and topics.

    Attributes:
        host: Host name of the broker.
        port: TCP port of the broker.
        tls: Whether the connection is encrypted and the broker's certificate verified.
        topic: Prefix of all topics except Home Assistant's.
        user: User name, None for an anonymous connection.
        password: Password of `user`.
        ca: Certificate authorities to trust instead of the system's.
        certificate: Client certificate and its private key, in one file.
        discovery: Whether the camera is announced to Home Assistant.
    """

    host: str
    port: int
    tls: bool
    topic: str
    user: str | None = None
    password: str | None = None
    ca: Path | None = None
    certificate: Path | None = None
    discovery: bool = True

    def __repr__(self) -> str:
        """Return the address without the password."""
        return f"MqttSettings({self.address}, {self.topic})"

    @classmethod
    def parse(
        cls,
        url: str,
        credentials: str | None,
        *,
        topic: str | None = None,
        ca: Path | None = None,
        certificate: Path | None = None,
        discovery: bool = True,
    ) -> Self:
        """Return the settings for a broker at `url` with `credentials` of the form user:password.

        Raises:
            InputError: The address, the topic or a certificate file is invalid.
        """
        host, port, tls = _address(url)
        for path, what in ((ca, "file of certificate authorities"), (certificate, "certificate")):
            if path is not None:
                require_file(path, what)
                if not tls:
                    raise InputError(f"MQTT broker '{url}' is without TLS: use mqtts:// with certificates")
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
            discovery=discovery,
        )

    @property
    def address(self) -> str:
        """Host and port as in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def node(self) -> str:
        """The camera's id in Home Assistant and in file names: the topic, reduced to letters, digits, - and _.

        Topics of other characters, such as 厨房 and 客厅, would be reduced to one id. Their ids contain a hash, too.
        """
        if re.fullmatch(r"[A-Za-z0-9_./-]+", self.topic):
            return self._reduced_topic
        return f"{self._reduced_topic}_{hashlib.sha256(self.topic.encode()).hexdigest()[:8]}"

    @property
    def command_topic(self) -> str:
        """The topic at which commands arrive."""
        return f"{self.topic}/command"

    @property
    def client_id(self) -> str:
        """The MQTT client id, the same in every run, so that a new connection replaces a stale one."""
        digest = hashlib.sha256(f"{socket.gethostname()} {self.topic}".encode()).hexdigest()
        # Brokers must accept only up to 23 letters and digits (MQTT 3.1.1, section 3.1.3.1).
        return f"edgekit{digest[:16]}"

    @property
    def buffer_path(self) -> Path:
        """The file of the event buffer, in the state folder of the service or the user."""
        folder = state_folder()
        # The name in edgekit 0.2; the file may hold events of that version.
        old = folder / f"mqtt-{self._reduced_topic}.sqlite"
        return old if old.exists() else folder / f"mqtt-{self.node}.sqlite"

    @property
    def _reduced_topic(self) -> str:
        return re.sub(r"[^A-Za-z0-9_-]", "_", self.topic)


def _address(url: str) -> tuple[str, int, bool]:
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
        (parts.hostname or "").encode("idna")  # as the resolver does
    except ValueError:
        raise InputError("the MQTT broker's address must look like mqtt://host:1883") from None
    if parts.username is not None or parts.password is not None:
        raise InputError("the MQTT broker's address contains a password: use --mqtt-credentials FILE")
    if parts.scheme not in _PORTS or not parts.hostname or parts.path.strip("/") or parts.query:
        raise InputError(f"MQTT broker '{url}' must look like mqtt://host:1883, or mqtts://host:8883 for TLS")
    return parts.hostname, port or _PORTS[parts.scheme], parts.scheme == "mqtts"


def _topic(topic: str | None) -> str:
    if topic is None:
        return f"edgekit/{re.sub(r'[^A-Za-z0-9_.-]', '_', socket.gethostname()) or 'camera'}"
    if "+" in topic or "#" in topic:
        raise InputError(f"MQTT topic '{topic}' contains a wildcard, + or #: remove it")
    is_topic = re.fullmatch(r"[^$/+#]([^+#]*[^/+#])?", topic) is not None and topic.isprintable()
    if not is_topic or len(topic) > _MAX_TOPIC_CHARS:
        raise InputError(f"MQTT topic '{topic}' is invalid: use a name such as edgekit/door")
    return topic
