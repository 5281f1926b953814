"""MQTT discovery of Home Assistant: one retained message describes the camera and all its entities.

The form is that of device discovery, which Home Assistant has since version 2024.11.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

from edgekit import __version__
from edgekit.contract import UNCERTAIN, Contract
from edgekit.device.frame import CAMERA_STATES
from edgekit.device.sinks.mqtt.session import MqttSettings

# Time after three missed state messages, which are sent at least every ten seconds.
_EXPIRES_S = 35

# Payloads of TOPIC/paused.
PAUSED, NOT_PAUSED = "ON", "OFF"

# Component, object id, and what describes the entity; None removes the entity.
_Entity: TypeAlias = tuple[str, str, dict[str, Any] | None]

# Object id and name of each published image, by the last part of its topic.
IMAGES = {"snapshot": ("snapshot", "Latest event"), "command-snapshot": ("command_snapshot", "Latest snapshot")}

_MEASURED = {"state_class": "measurement"}
_DIAGNOSTIC = {"entity_category": "diagnostic"}
_THROTTLED = "{{ 'ON' if value_json.throttling and value_json.throttling.now else 'OFF' }}"

# Entities that each zone has, too.
_OF_ZONES = ("faces", "label", "present", "changed")
# Replaces "value_json." in the templates of their values. The default is for a zone that the message does not contain:
# Home Assistant keeps the entities of a zone that a later run does not have, and they show no faces.
_VALUES_OF_ZONE = "value_json.get('zones', {}).get('ZONE', {'faces': 0, 'label': none})."
# The template of their events. An empty value is no event.
_EVENT_OF_ZONE = "{{ value if value_json.zone == 'ZONE' else '' }}"
# Entities of face detection, removed for a model of whole images.
_OF_FACES = ("faces", "present")
_NAMES_OF_IMAGES = {"label": "Label", "changed": "Label changed"}

_LOSSES = "{{ {'reasons': value_json.dropped_by} | tojson }}"

# Component, object id, name, topic below the camera's topic, template of the value (None: the event itself), and
# further fields of the entity.
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
    ("sensor", "camera", "Camera", "health", "{{ value_json.camera }}", _DIAGNOSTIC | {"device_class": "enum"}),
    ("sensor", "dropped", "Dropped items", "health", "{{ value_json.dropped }}",
     _DIAGNOSTIC | {"state_class": "total_increasing", "json_attributes_template": _LOSSES}),
    ("sensor", "disk_free", "Free disk space", "health", "{{ value_json.disk_free_mib }}",
     _MEASURED | _DIAGNOSTIC | {"unit_of_measurement": "MiB", "device_class": "data_size"}),
    ("event", "changed", "Expression changed", "event", None, {}),
)  # fmt: skip


# Component and object id of the entities of edgekit 0.2, each of which had a discovery message of its own.
_OLD_PREFIX = "homeassistant"
_OLD_ENTITIES = (
    ("sensor", "faces"),
    ("sensor", "label"),
    ("binary_sensor", "present"),
    ("sensor", "fps"),
    ("sensor", "temperature"),
    ("binary_sensor", "throttled"),
    ("event", "changed"),
)


class Message(NamedTuple):
    """A message to publish."""

    topic: str
    payload: bytes
    retain: bool = True


def discovery_messages(
    settings: MqttSettings,
    contract: Contract,
    *,
    images: Collection[str] = (),
    commands: Collection[str] = (),
    zones: Collection[str] = (),
) -> Iterator[Message]:
    """Yield the message that describes the camera, between those that remove the messages of edgekit 0.2.

    Args:
        settings: The topics, and the name of the camera.
        contract: The contract of the model.
        images: The images that are published, by the last part of their topic: of `IMAGES`.
        commands: The commands that are allowed.
        zones: The names of the zones.
    """
    measured = list(_measured(settings, contract, is_pausable="pause" in commands))
    entities = [
        *measured,
        *_of_zones(measured, zones),
        *_controls(settings, commands),
        *_images(settings, images),
    ]
    document = {
        "dev": {
            "identifiers": [settings.node],
            "name": settings.device_name,
            "manufacturer": "edgekit",
            "model": "edgekit run",
            "sw_version": __version__,
        },
        "o": {"name": "edgekit", "sw_version": __version__},
        "availability": [_online(settings)],
        "cmps": dict(_component(settings, entity) for entity in entities),
    }
    old = [f"{_OLD_PREFIX}/{component}/{settings.node}/{object_id}/config" for component, object_id in _OLD_ENTITIES]
    # Home Assistant then keeps an entity's settings and history for the next one with the same `unique_id`.
    yield from (Message(topic, b'{"migrate_discovery": true}', retain=False) for topic in old)
    yield Message(f"{settings.discovery_prefix}/device/{settings.node}/config", json.dumps(document).encode())
    yield from (Message(topic, b"") for topic in old)


def _component(settings: MqttSettings, entity: _Entity) -> tuple[str, dict[str, Any]]:
    """Return the key and the description of an entity in the discovery message.

    The key is the unique id. With the object id as the key, Home Assistant would take the entity for the one of edgekit
    0.2, and warn of two conflicting messages.
    """
    component, object_id, document = entity
    unique_id = f"{settings.node}_{object_id}"
    if document is None:  # a description of nothing but the component removes the entity from Home Assistant
        return unique_id, {"p": component}
    return unique_id, {"p": component, "unique_id": unique_id, **document}


def _online(settings: MqttSettings) -> dict[str, str]:
    return {"topic": f"{settings.topic}/availability"}


def _measured(settings: MqttSettings, contract: Contract, is_pausable: bool) -> Iterator[_Entity]:
    """Yield the entities of `_ENTITIES`: the results and the state of the run."""
    labels, is_of_faces = contract.labels, contract.subject == "face"
    for component, object_id, name, topic, template, details in _ENTITIES:
        if not is_of_faces and object_id in _OF_FACES:
            yield component, object_id, None  # removes the entity, which an earlier run may have announced
            continue
        document: dict[str, Any] = {
            "name": name if is_of_faces else _NAMES_OF_IMAGES.get(object_id, name),
            "state_topic": f"{settings.topic}/{topic}",
            "qos": 1,
            **details,
        }
        if template is None:  # an entity of events
            document["event_types"] = list(labels)
        else:
            document |= {"value_template": template, "expire_after": _EXPIRES_S}
        if document.get("device_class") == "enum":
            # `fromkeys`, because a model may have a label "uncertain" of its own.
            states = CAMERA_STATES if object_id == "camera" else dict.fromkeys([*labels, UNCERTAIN])
            document["options"] = list(states)
        if "json_attributes_template" in document:
            document["json_attributes_topic"] = document["state_topic"]
        if is_pausable and topic == "state":  # a paused run has no faces; events and health are still published
            document |= _unless_paused(settings)
        yield component, object_id, document


def _of_zones(entities: Sequence[_Entity], zones: Collection[str]) -> Iterator[_Entity]:
    """Yield the entities of each zone: those of the whole frame, with templates that read the values of the zone."""
    for zone in zones:
        for component, object_id, document in entities:
            if object_id not in _OF_ZONES or document is None:  # None: the model has no such entity
                continue
            if component == "event":
                template = _EVENT_OF_ZONE.replace("ZONE", zone)
            else:
                values_of_zone = _VALUES_OF_ZONE.replace("ZONE", zone)
                template = document["value_template"].replace("value_json.", values_of_zone)
            name = f"{document['name']} {zone}"
            yield component, f"zone_{zone}_{object_id}", {**document, "name": name, "value_template": template}


def _controls(settings: MqttSettings, commands: Collection[str]) -> Iterator[_Entity]:
    """Yield the switch that pauses the run, and the button that takes a snapshot; None removes one."""
    to_command = {"command_topic": settings.command_topic, "qos": 1, "retain": False}
    pause = {
        "name": "Pause",
        "icon": "mdi:pause",
        "payload_on": "pause",
        "payload_off": "resume",
        "state_topic": f"{settings.topic}/paused",
        "state_on": PAUSED,
        "state_off": NOT_PAUSED,
        **to_command,
    }
    snapshot = {"name": "Snapshot", "icon": "mdi:camera", "payload_press": "snapshot", **to_command}
    if "pause" in commands:  # a paused run takes no snapshots
        snapshot |= _unless_paused(settings)
    yield "switch", "pause", pause if "pause" in commands else None
    yield "button", "take_snapshot", snapshot if "snapshot" in commands else None


def _images(settings: MqttSettings, images: Collection[str]) -> Iterator[_Entity]:
    for topic, (object_id, name) in IMAGES.items():
        document = {"name": name, "image_topic": f"{settings.topic}/{topic}", "content_type": "image/jpeg"}
        yield "image", object_id, document if topic in images else None


def _unless_paused(settings: MqttSettings) -> dict[str, Any]:
    """Return the fields that make an entity unavailable while the run is paused."""
    paused = {
        "topic": f"{settings.topic}/paused",
        "payload_available": NOT_PAUSED,
        "payload_not_available": PAUSED,
    }
    return {"availability": [_online(settings), paused], "availability_mode": "all"}
