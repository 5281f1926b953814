"""Events, state and health sent to an MQTT broker, and commands received from it."""

from __future__ import annotations

from edgekit.device.sinks.mqtt.commands import Commands
from edgekit.device.sinks.mqtt.settings import MqttSettings
from edgekit.device.sinks.mqtt.sink import MqttSink

__all__ = ["Commands", "MqttSettings", "MqttSink"]
