"""Events, state and health sent to an MQTT broker, and commands received from it: the options."""

from __future__ import annotations

import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.device.sink import Sink, SinkOptions
from edgekit.errors import InputError
from edgekit.options import option

if TYPE_CHECKING:
    from edgekit.device.sinks.context import RunContext


_COMMANDS = ("pause", "snapshot")
_PORTS = {"mqtt": 1883, "mqtts": 8883}


def _commands(text: str) -> str:
    """Return the text `pause,snapshot`, or one of them, without spaces; raise ValueError for another command."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in _COMMANDS:
            raise ValueError(f"'{name}' is not a command: choose from {', '.join(_COMMANDS)}")
    return ",".join(names)


def parse_broker(url: str) -> tuple[str, int, bool]:
    """Return host and port of a broker's address, and whether the connection is encrypted.

    Raises:
        InputError: The address is not of the form mqtt://HOST[:PORT] or mqtts://HOST[:PORT].
    """
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port  # raises ValueError if it is no number
        (parts.hostname or "").encode("idna")  # as the resolver does; raises UnicodeError, which is a ValueError
    except ValueError:
        raise InputError("the MQTT broker's address must look like mqtt://host:1883") from None
    if parts.username is not None or parts.password is not None:
        raise InputError("the MQTT broker's address contains a password: use --mqtt-credentials FILE")
    if parts.scheme not in _PORTS or not parts.hostname or parts.path.strip("/") or parts.query:
        raise InputError(f"MQTT broker '{url}' must look like mqtt://host:1883, or mqtts://host:8883 for TLS")
    return parts.hostname, port or _PORTS[parts.scheme], parts.scheme == "mqtts"


@dataclass(frozen=True, kw_only=True)
class MqttOptions(SinkOptions):
    """Options of MQTT."""

    title = "MQTT"

    mqtt: str | None = option(
        "--mqtt",
        "Publish events and state to an MQTT broker: mqtt://HOST[:PORT], or mqtts:// for TLS.",
        metavar="URL",
        main=True,
    )
    mqtt_credentials: Path | None = option(
        "--mqtt-credentials",
        "File with user:password. EDGEKIT_MQTT_CREDENTIALS can contain user:password instead.",
        metavar="FILE",
        needs="--mqtt",
    )
    mqtt_topic: str | None = option(
        "--mqtt-topic", "Prefix of the topics.", metavar="TOPIC", default_text="edgekit/HOSTNAME", needs="--mqtt"
    )
    mqtt_ca: Path | None = option(
        "--mqtt-ca", "Certificate authorities to trust instead of the system's.", metavar="PEM", needs="--mqtt"
    )
    mqtt_cert: Path | None = option(
        "--mqtt-cert", "Client certificate and its private key, in one file.", metavar="PEM", needs="--mqtt"
    )
    mqtt_discovery: bool = option(
        "--mqtt-discovery", "Announce the camera to Home Assistant.", default=True, needs="--mqtt"
    )
    mqtt_discovery_prefix: str = option(
        "--mqtt-discovery-prefix",
        "Prefix of the discovery topics, as in the settings of Home Assistant's MQTT integration.",
        default="homeassistant",
        metavar="TOPIC",
        needs="--mqtt",
    )
    mqtt_device_name: str | None = option(
        "--mqtt-device-name",
        "Name of the device in Home Assistant.",
        metavar="NAME",
        default_text="the prefix of the topics",
        needs="--mqtt",
    )
    mqtt_commands: str = option(
        "--mqtt-commands",
        "Commands to accept, separated by commas: pause (and resume), snapshot (needs --event-snapshots). "
        "Default: none.",
        default="",
        metavar="LIST",
        parse=_commands,
        needs="--mqtt",
    )

    def open(self, run: RunContext) -> Sink | None:
        """Return the sink, which receives the events of the run.

        Raises:
            InputError: Address, topic, credentials or a certificate cannot be used, or --event-snapshots is missing.
            TemporaryError: Another run uses the topic or the buffer.
        """
        if self.mqtt is None:
            return None
        from edgekit.device.sink import read_secret
        from edgekit.device.sinks.mqtt.session import Commands, MqttSettings
        from edgekit.device.sinks.mqtt.sink import MqttSink

        credentials = read_secret(
            self.mqtt_credentials, "EDGEKIT_MQTT_CREDENTIALS", "MQTT user and password", run.notify
        )
        allowed = frozenset(self.mqtt_commands.split(",")) - {""}  # of an empty text
        commands = Commands(allowed, run) if allowed else None
        sink = MqttSink(MqttSettings(self, credentials), run, commands)
        run.links.outlets.append(sink.post)  # it receives each event
        return sink
