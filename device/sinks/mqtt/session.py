"""One connection to a broker, from connecting to its loss: the only module that knows paho."""

from __future__ import annotations

import ssl
import threading
from collections import deque
from typing import Any, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from edgekit.device.sinks.mqtt.settings import MqttSettings
from edgekit.errors import InputError

_CONNECT_S = 5.0
# A broker that vanished without a word is noticed after about this long.
_KEEPALIVE_S = 20


class RefusedError(OSError):
    """The broker answers and does not let us in."""


class Session:
    """A connection that is used until it is lost and never reused.

    paho would send again by itself what was not confirmed, but in what order with new messages is its own affair: so
    each connection starts with an empty queue, and the spool says what is sent.
    """

    def __init__(self, settings: MqttSettings, wake: threading.Event) -> None:
        """Prepare to connect; `wake` is set whenever there is news: a confirmation, or the loss."""
        self._settings = settings
        self._wake = wake
        self._answer = threading.Event()
        self._refusal = ""
        self.lost = False
        self.confirmed: deque[int] = deque()
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=settings.client_id,
            clean_session=True,
            protocol=paho.MQTTv311,
            reconnect_on_failure=False,
        )
        client.connect_timeout = _CONNECT_S
        client.will_set(f"{settings.topic}/availability", "offline", qos=1, retain=True)
        if settings.user is not None:
            client.username_pw_set(settings.user, settings.password)
        if settings.tls:
            client.tls_set_context(_tls_context(settings))
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        self._client = client

    def __enter__(self) -> Self:
        """Connect.

        Raises:
            OSError: No connection: nobody there, no trust, or no entry.
        """
        self._client.connect(self._settings.host, self._settings.port, _KEEPALIVE_S)
        self._client.loop_start()
        if not self._answer.wait(_CONNECT_S) or self._refusal:
            self._client.disconnect()
            self._client.loop_stop()
            raise RefusedError(self._refusal or "it does not answer")
        return self

    def __exit__(self, *exception: object) -> None:
        """Say goodbye, so that the broker does not announce a death, and end the network's thread."""
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, topic: str, payload: bytes | str, qos: int = 1, retain: bool = False) -> int | None:
        """Send a message and return the number that `confirmed` will hold once it arrived, or None if it is lost."""
        info = self._client.publish(topic, payload, qos=qos, retain=retain)
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self.lost = True
            return None
        return info.mid

    def _on_connect(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        del client, data, flags, properties
        if reason.is_failure:
            self._refusal = f"it refuses: {reason}"
        self._answer.set()

    def _on_disconnect(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        del client, data, flags, reason, properties
        if not self._answer.is_set():
            self._refusal = "it ends the connection"
            self._answer.set()
        self.lost = True
        self._wake.set()

    def _on_publish(self, client: Any, data: Any, mid: int, reason: Any, properties: Any) -> None:
        # paho holds a lock in here that `publish` wants too: nothing more may happen than noting it.
        del client, data, reason, properties
        self.confirmed.append(mid)
        self._wake.set()


def check_certificates(settings: MqttSettings) -> None:
    """Look at the certificates once, so that a wrong file is no outage that never ends.

    Raises:
        InputError: They cannot be used.
    """
    try:
        _tls_context(settings)
    except OSError as error:
        named = ", ".join(f"'{path}'" for path in (settings.ca, settings.certificate, settings.key) if path is not None)
        raise InputError(f"MQTT certificates {named} cannot be used: {error}") from error


def _tls_context(settings: MqttSettings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=None if settings.ca is None else str(settings.ca))
    if settings.certificate is not None and settings.key is not None:
        context.load_cert_chain(settings.certificate, settings.key)
    return context
