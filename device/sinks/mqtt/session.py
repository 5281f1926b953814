"""One connection to a broker, until it is lost. No other module imports paho."""

from __future__ import annotations

import errno
import hashlib
import socket
import ssl
import threading
from collections import deque
from typing import Any, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from edgekit.device.sinks.mqtt.commands import Commands
from edgekit.device.sinks.mqtt.settings import MqttSettings
from edgekit.errors import InputError, TemporaryError

_CONNECT_TIMEOUT_S = 5.0
# A broker that disappears without closing the connection is detected after about this time.
_KEEPALIVE_S = 20


class RefusedError(OSError):
    """The broker rejects the connection, or does not respond to the connection request."""


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
        # Whether the broker refuses the subscription.
        self.is_subscription_refused = False
        self._wake = wake
        self._answered = threading.Event()
        # Kind and text of an error. An exception that this object keeps would keep this object and its sockets.
        self._failure: tuple[type[OSError], str] | None = None
        self.lost = False
        self.confirmed: deque[int] = deque()
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=settings.client_id,
            clean_session=True,
            protocol=paho.MQTTv311,
            reconnect_on_failure=False,
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
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        self._client = client

    def __enter__(self) -> Self:
        """Connect to the broker.

        Raises:
            OSError: The broker cannot be reached, does not respond, or its certificate is not trusted.
            RefusedError: It rejects the connection.
        """
        try:
            self._client.connect(self._settings.host, self._settings.port, _KEEPALIVE_S)
            self._client.loop_start()
            if not self._answered.wait(_CONNECT_TIMEOUT_S):
                raise TimeoutError(f"no response within {_CONNECT_TIMEOUT_S:g} s")
            if self._failure is not None:
                kind, text = self._failure
                raise kind(text)
            if self._commands is not None:
                self._client.subscribe(self._settings.command_topic, qos=1)
        except OSError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        """Disconnect properly, so that the broker does not send the last will, and end the network thread."""
        self._client.disconnect()
        self._client.loop_stop()
        # Without these references to this object, Python frees the client at once, which closes its sockets.
        self._client.on_connect = self._client.on_disconnect = self._client.on_publish = None
        self._client.on_subscribe = self._client.on_message = None

    @property
    def own_address(self) -> str:
        """The address of this machine in the network of the broker; "" after the connection is lost."""
        connection: Any = self._client.socket()
        return "" if connection is None else str(connection.getsockname()[0])

    def publish(self, topic: str, payload: bytes | str, qos: int = 1, retain: bool = False) -> int | None:
        """Send a message; return its id, which `confirmed` receives on delivery, or None if the connection is lost."""
        info = self._client.publish(topic, payload, qos=qos, retain=retain)
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self.lost = True
            return None
        return info.mid

    def _on_connect(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._failure = RefusedError, f"connection rejected: {reason}"
        self._answered.set()

    def _on_disconnect(self, _client: Any, _data: Any, _flags: Any, _reason: Any, _properties: Any) -> None:
        if not self._answered.is_set():
            self._failure = OSError, "the broker closed the connection"
            self._answered.set()
        self.lost = True
        self._wake.set()

    def _on_publish(self, _client: Any, _data: Any, mid: int, _reason: Any, _properties: Any) -> None:
        # paho holds a lock here that `publish` needs, so this callback only records the id.
        self.confirmed.append(mid)
        self._wake.set()

    def _on_subscribe(self, _client: Any, _data: Any, _mid: int, reasons: Any, _properties: Any) -> None:
        self.is_subscription_refused = any(reason.is_failure for reason in reasons)
        self._wake.set()

    def _on_message(self, _client: Any, _data: Any, message: Any) -> None:
        if self._commands is not None:
            self._commands.receive(message.payload, message.retain)
            self._wake.set()


def lock_topic(settings: MqttSettings) -> socket.socket:
    """Return a socket whose name stands for the topic on this machine, until it is closed or the process ends.

    Two runs with one topic have one client id, so that the broker would close each one's connection for the other. The
    file of the buffer is no such lock: two services have different state folders.

    Raises:
        TemporaryError: Another run of this machine has the topic.
    """
    digest = hashlib.sha256(f"{settings.address} {settings.topic}".encode()).hexdigest()
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        lock.bind(f"\0edgekit-mqtt-{digest}")
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
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
        paths = ", ".join(f"'{path}'" for path in (settings.ca, settings.certificate) if path is not None)
        raise InputError(f"MQTT certificates {paths} cannot be loaded: {error}") from error


def _tls_context(settings: MqttSettings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=None if settings.ca is None else str(settings.ca))
    if settings.certificate is not None:
        context.load_cert_chain(settings.certificate)
    return context
