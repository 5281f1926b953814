"""Settings of an MQTT broker, one connection to it, and the commands that arrive. No other module imports paho."""

from __future__ import annotations

import hashlib
import re
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from edgekit.device.sinks.context import RunContext, state_folder
from edgekit.device.sinks.mqtt import MqttOptions, parse_broker
from edgekit.errors import InputError, TemporaryError
from edgekit.files import require_file

_MAX_TOPIC_CHARS = 200


class MqttSettings:
    """Address, credentials and topics.

    Attributes:
        options: The options of MQTT.
        host: Host name of the broker.
        port: TCP port of the broker.
        tls: Whether the connection is encrypted and the broker's certificate verified.
        topic: Prefix of all topics except Home Assistant's.
        discovery_prefix: Prefix of Home Assistant's topics.
        device_name: Name of the camera in Home Assistant.
        user: User name, None for an anonymous connection.
        password: Password of `user`.
    """

    def __init__(self, options: MqttOptions, credentials: str | None = None) -> None:
        """Use `options`, and `credentials` of the form user:password.

        Raises:
            InputError: The address, the topic or a certificate file is invalid.
        """
        self.options = options
        self.host, self.port, self.tls = parse_broker(options.mqtt or "")  # not None where the sink is opened
        self.topic = _topic(options.mqtt_topic)
        self.discovery_prefix = _topic(options.mqtt_discovery_prefix)
        self.device_name = options.mqtt_device_name or self.topic
        user, colon, password = (credentials or "").partition(":")
        self.user = user or None
        self.password = password if colon else None  # a user may have none
        for path, what in ((options.mqtt_ca, "file of certificate authorities"), (options.mqtt_cert, "certificate")):
            if path is not None:
                require_file(path, what)
                if not self.tls:
                    raise InputError(f"MQTT broker '{options.mqtt}' is without TLS: use mqtts:// with certificates")

    def __repr__(self) -> str:
        """Return the address without the password."""
        return f"MqttSettings({self.address}, {self.topic})"

    @property
    def address(self) -> str:
        """Host and port as in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def node(self) -> str:
        """The camera's id in Home Assistant and in file names: the topic, reduced to letters, digits, - and _.

        A hash is appended to topics of other characters, because 厨房 and 客厅 would be reduced to the same id. Topics
        of ASCII letters have no hash, as in edgekit 0.2: a/b and a.b have one id, and the documentation states this.
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


def _topic(topic: str | None) -> str:
    """Return a topic, by default `edgekit/HOST`; raise InputError if messages cannot be published below it."""
    if topic is None:
        host = re.sub(r"[^A-Za-z0-9_.-]", "_", socket.gethostname())
        return f"edgekit/{host or 'camera'}"
    # Without wildcards (+ and #), without $ at the beginning, and without / at both ends.
    is_topic = re.fullmatch(r"[^$/+#]([^+#]*[^/+#])?", topic) is not None and topic.isprintable()
    if not is_topic or len(topic) > _MAX_TOPIC_CHARS:
        raise InputError(f"MQTT topic '{topic}' is invalid: use a name such as edgekit/door, without + and #")
    return topic


_CONNECT_TIMEOUT_S = 5.0
# A broker that disappears without closing the connection is detected after about this time.
_KEEPALIVE_S = 20


class Commands:
    """Executes the commands that arrive at the topic of a run; the rest is counted and reported once per reason.

    Attributes:
        allowed: The allowed commands.
        controls: What the commands act on.
    """

    def __init__(self, allowed: Collection[str], run: RunContext) -> None:
        """Allow some commands: "pause" (which also allows `resume`) and "snapshot".

        Raises:
            InputError: Snapshots are allowed, and the run has no folder for them.
        """
        self.allowed = frozenset(allowed)
        self.controls = run.controls
        self._notify = run.notify
        self._reported: set[str] = set()  # reasons for which a message was ignored
        self._actions: dict[bytes, Callable[[], None]] = {}  # by the payload of the message
        if "pause" in allowed:
            self._actions |= {b"pause": run.controls.pause, b"resume": run.controls.resume}
        if "snapshot" in allowed:
            if run.links.snapshots is None:
                raise InputError("--mqtt-commands snapshot needs a folder for the images: give --event-snapshots")
            self._actions[b"snapshot"] = run.links.snapshots.request

    def receive(self, payload: bytes, retained: bool) -> None:
        """Execute a command, or count and report why it is not executed.

        `retained` is true for a message that the broker stored before this run subscribed: it is not a command to this
        run, and is ignored.
        """
        action = self._actions.get(payload)
        if retained:
            self._ignore("a retained message")
        elif action is None:
            self._ignore("a message that is no allowed command")
        elif payload == b"snapshot" and self.controls.paused:
            self._ignore("snapshot, because the run is paused")
        else:
            self.controls.commands[payload.decode()] += 1
            action()

    def _ignore(self, reason: str) -> None:
        self.controls.commands["ignored"] += 1
        if reason not in self._reported:
            self._reported.add(reason)
            self._notify(f"MQTT: ignored {reason}; further ones are only counted")


class Session:
    """A connection to the broker, used until it is lost and never reused.

    paho resends unconfirmed messages after a reconnection, but in no defined order relative to new ones. So each
    connection starts with an empty queue, and the spool decides what is sent.
    """

    def __init__(self, settings: MqttSettings, wake: threading.Event, commands: Commands | None = None) -> None:
        """Prepare to connect; `wake` is set at each confirmation, command, and at the loss of the connection.

        With `commands` the session subscribes to `TOPIC/command`.
        """
        self._settings = settings
        self._commands = commands
        self._wake = wake
        self._answered = threading.Event()  # set when the broker has accepted or rejected the connection
        # A text: an exception that this object keeps would keep this object and its sockets.
        self._failure: str | None = None
        self.lost = False
        self.confirmed: deque[int] = deque()
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=settings.client_id,
            clean_session=True,  # the spool keeps what is not delivered
            protocol=paho.MQTTv311,
            reconnect_on_failure=False,  # the sink connects again, with another session
        )
        client.connect_timeout = _CONNECT_TIMEOUT_S
        client.will_set(f"{settings.topic}/availability", "offline", qos=1, retain=True)
        if settings.user is not None:
            client.username_pw_set(settings.user, settings.password)
        if settings.tls:
            client.tls_set_context(_tls_context(settings))
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        self._client = client

    def __enter__(self) -> Self:
        """Connect to the broker.

        Raises:
            OSError: The broker cannot be reached, does not respond, rejects the connection, or is not trusted.
        """
        try:
            self._client.connect(self._settings.host, self._settings.port, _KEEPALIVE_S)
            self._client.loop_start()
            if not self._answered.wait(_CONNECT_TIMEOUT_S):
                raise TimeoutError(f"no response within {_CONNECT_TIMEOUT_S:g} s")
            if self._failure is not None:
                raise OSError(self._failure)
            if self._commands is not None:
                self._client.subscribe(self._settings.command_topic, qos=1)
        except OSError:
            self.__exit__()  # ends the network thread
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        """Disconnect properly, so that the broker does not send the last will, and end the network thread."""
        self._client.disconnect()
        self._client.loop_stop()
        # Without these references to this object, Python frees the client at once, which closes its sockets.
        self._client.on_connect = self._client.on_disconnect = self._client.on_publish = None
        self._client.on_message = None

    def publish(self, topic: str, payload: bytes | str, qos: int = 1, retain: bool = False) -> int | None:
        """Send a message; return its id, which `confirmed` receives on delivery, or None if the connection is lost."""
        info = self._client.publish(topic, payload, qos=qos, retain=retain)
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self.lost = True
            return None
        return info.mid

    def _on_connect(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._failure = f"connection rejected: {reason}"
        self._answered.set()

    def _on_disconnect(self, _client: Any, _data: Any, _flags: Any, _reason: Any, _properties: Any) -> None:
        if not self._answered.is_set():
            self._failure = "the broker closed the connection"
            self._answered.set()
        self.lost = True
        self._wake.set()

    def _on_publish(self, _client: Any, _data: Any, mid: int, _reason: Any, _properties: Any) -> None:
        # paho holds a lock here that `publish` needs, so this callback only records the id.
        self.confirmed.append(mid)
        self._wake.set()

    def _on_message(self, _client: Any, _data: Any, message: Any) -> None:
        if self._commands is not None:
            self._commands.receive(message.payload, message.retain)
            self._wake.set()


def lock_topic(settings: MqttSettings) -> socket.socket:
    """Lock the topic against other runs on this machine; return the socket that keeps the lock until it is closed.

    Two runs with one topic have one client id, so that the broker would close each one's connection for the other. The
    file of the buffer is no such lock: two services have different state folders.

    Raises:
        TemporaryError: Another run of this machine has the topic.
    """
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    digest = hashlib.sha256(f"{settings.address} {settings.topic}".encode()).hexdigest()
    try:
        lock.bind(f"\0edgekit-mqtt-{digest}")  # a name, not a file: only one socket can have it
    except OSError as error:
        lock.close()
        raise TemporaryError(
            f"MQTT topic '{settings.topic}' is in use by another run: give each run its own --mqtt-topic"
        ) from error
    return lock


def check_certificates(settings: MqttSettings) -> None:
    """Load the certificates once, so that a wrong file is an error and not an endless outage.

    Raises:
        InputError: A certificate or its key cannot be loaded.
    """
    try:
        _tls_context(settings)
    except OSError as error:
        options = settings.options
        paths = ", ".join(f"'{path}'" for path in (options.mqtt_ca, options.mqtt_cert) if path is not None)
        raise InputError(f"MQTT certificates {paths} cannot be loaded: {error}") from error


def _tls_context(settings: MqttSettings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=settings.options.mqtt_ca)
    if settings.options.mqtt_cert is not None:
        context.load_cert_chain(settings.options.mqtt_cert)
    return context
