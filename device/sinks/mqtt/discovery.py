"""MQTT discovery of Home Assistant: one retained message describes each entity of this camera."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from edgekit import __version__
from edgekit.contract import UNCERTAIN, Subject
from edgekit.device.sinks.mqtt.settings import MqttSettings

_PREFIX = "homeassistant"
# Time after three missed state messages, which are sent at least every ten seconds.
_EXPIRES_S = 35

_MEASURED = {"state_class": "measurement"}
_DIAGNOSTIC = {"entity_category": "diagnostic"}
_THROTTLED = "{{ 'ON' if value_json.throttling and value_json.throttling.now else 'OFF' }}"

# Entities of face detection, removed for a model of whole images.
_OF_FACES = ("faces", "present")
_NAMES_OF_IMAGES = {"label": "Label", "changed": "Label changed"}

# Component, object id, name, topic below the camera's topic, template of the value (None: the event itself), and
# further fields of the discovery document.
_ENTITIES: tuple[tuple[str, str, str, str, str | None, dict[str, str]], ...] = (
    ("sensor", "faces", "Faces", "state", "{{ value_json.faces }}", _MEASURED),
    ("sensor", "label", "Expression", "state", "{{ value_json.label }}", {"device_class": "enum"}),
    ("binary_sensor", "present", "Face present", "state", "{{ 'ON' if value_json.faces > 0 else 'OFF' }}",
     {"device_class": "occupancy"}),
    ("sensor", "fps", "Frame rate", "state", "{{ value_json.fps }}",
     _MEASURED | _DIAGNOSTIC | {"unit_of_measurement": "fps"}),
    ("sensor", "temperature", "Temperature", "health", "{{ value_json.temperature_c }}",
     _MEASURED | _DIAGNOSTIC | {"unit_of_measurement": "°C", "device_class": "temperature"}),
    ("binary_sensor", "throttled", "Throttled", "health", _THROTTLED, _DIAGNOSTIC | {"device_class": "problem"}),
    ("event", "changed", "Expression changed", "event", None, {}),
)  # fmt: skip


def discovery_messages(
    settings: MqttSettings, labels: Sequence[str], subject: Subject = "face", snapshots: bool = False
) -> Iterator[tuple[str, bytes]]:
    """Yield the topic and payload of every entity, to be published as retained messages.

    `snapshots` adds the image of the latest event.

    The payload of an entity that a model of this subject does not have is empty, which removes it from Home Assistant.
    """
    device = {
        "identifiers": [settings.node],
        "name": settings.topic,
        "manufacturer": "edgekit",
        "model": "edgekit run",
        "sw_version": __version__,
    }
    for component, object_id, name, topic, template, details in _ENTITIES:
        config_topic = f"{_PREFIX}/{component}/{settings.node}/{object_id}/config"
        if subject == "image" and object_id in _OF_FACES:
            yield config_topic, b""
            continue
        document: dict[str, Any] = {
            "name": _NAMES_OF_IMAGES.get(object_id, name) if subject == "image" else name,
            "unique_id": f"{settings.node}_{object_id}",
            "state_topic": f"{settings.topic}/{topic}",
            "availability_topic": f"{settings.topic}/availability",
            "device": device,
            "origin": {"name": "edgekit", "sw_version": __version__},
            "qos": 1,
            **details,
        }
        if template is None:
            document["event_types"] = list(labels)
        else:
            document |= {"value_template": template, "expire_after": _EXPIRES_S}
        if document.get("device_class") == "enum":
            document["options"] = list(dict.fromkeys([*labels, UNCERTAIN]))
        yield config_topic, json.dumps(document).encode()
    image = {
        "name": "Latest event",
        "unique_id": f"{settings.node}_snapshot",
        "image_topic": f"{settings.topic}/snapshot",
        "content_type": "image/jpeg",
        "availability_topic": f"{settings.topic}/availability",
        "device": device,
        "origin": {"name": "edgekit", "sw_version": __version__},
    }
    config_topic = f"{_PREFIX}/image/{settings.node}/snapshot/config"
    yield config_topic, json.dumps(image).encode() if snapshots else b""
