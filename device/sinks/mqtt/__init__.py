"""Events, state and health sent to an MQTT broker."""

from __future__ import annotations

from edgekit.device.sinks.mqtt.settings import MqttSettings
from edgekit.device.sinks.mqtt.sink import MqttSink

__all__ = ["MqttSettings", "MqttSink"]
