"""The sinks of `edgekit run`, made from its output options."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edgekit.cli.run.output_options import Outputs, rotation_of

if TYPE_CHECKING:
    from edgekit.device.blur import FaceBlur
    from edgekit.device.events import Outlet
    from edgekit.device.sinks import Sink
    from edgekit.device.sinks.monitor import ReadHealth
    from edgekit.device.sources import Source


def open_sinks(
    outputs: Outputs,
    source: Source,
    labels: Sequence[str],
    say: Callable[[str], None],
    notify: Callable[[str], None],
    health: ReadHealth,
) -> list[Sink]:
    """Return the sinks that were asked for, not yet entered; `health` returns the machine's newest state.

    Raises:
        InputError: One of them cannot be had like this.
    """
    sinks = _files(outputs, source, labels, notify)
    if outputs.show:
        from edgekit.device.sinks.window import WindowSink

        sinks.append(WindowSink(source.stop))
    sinks += _registered(outputs, source, labels, notify)
    _check_labels(outputs, labels)
    outlets = _network(outputs, source, labels, say, notify, health, sinks)
    if outlets:
        from edgekit.device.events import EventRules
        from edgekit.device.sinks.events import EventSink
        from edgekit.device.sources import presentation_time_s

        rules = EventRules(
            outputs.event_hold, outputs.event_cooldown, outputs.event_probability, frozenset(outputs.event_label)
        )
        sinks.append(EventSink(rules, outlets, presentation_time_s(source)))
    return sinks


def _files(outputs: Outputs, source: Source, labels: Sequence[str], notify: Callable[[str], None]) -> list[Sink]:
    rotation = rotation_of(outputs)
    sinks: list[Sink] = []
    if outputs.jsonl is not None or outputs.csv_file is not None:
        from edgekit.device.sinks.csv import CsvSink
        from edgekit.device.sinks.jsonl import JsonLinesSink
        from edgekit.device.sinks.lines import open_lines

        if outputs.jsonl is not None:
            sinks.append(JsonLinesSink(open_lines(outputs.jsonl, rotation, source.live, notify)))
        if outputs.csv_file is not None:
            sinks.append(CsvSink(open_lines(outputs.csv_file, rotation, source.live, notify), labels))
    if outputs.save is not None:
        from edgekit.device.sinks.recorder import open_video

        sinks.append(open_video(outputs.save, source.fps, source.live, rotation, _blur(outputs, source), notify))
    return sinks


def _blur(outputs: Outputs, source: Source) -> FaceBlur | None:
    """Return what hides faces for one sink: it remembers what that sink has seen."""
    from edgekit.device.blur import FaceBlur
    from edgekit.device.sources import presentation_time_s

    return FaceBlur(presentation_time_s(source)) if outputs.blur_faces else None


def _registered(outputs: Outputs, source: Source, labels: Sequence[str], notify: Callable[[str], None]) -> list[Sink]:
    from edgekit.device.registry import find
    from edgekit.device.sinks import SinkOptions

    named = (text.partition(":") for text in outputs.extra_sinks)
    return [find("sink", name)(SinkOptions(value, source.name, source.fps, labels, notify)) for name, _, value in named]


def _network(
    outputs: Outputs,
    source: Source,
    labels: Sequence[str],
    say: Callable[[str], None],
    notify: Callable[[str], None],
    health: ReadHealth,
    sinks: list[Sink],
) -> list[Outlet]:
    """Append the sinks that talk to others and return those that take events."""
    from edgekit.device.sinks.credentials import read_secret

    outlets: list[Outlet] = []
    if outputs.web is None and outputs.mqtt is None and outputs.webhook is None:
        return outlets
    from edgekit.device.sinks.concurrent_group import ConcurrentGroup
    from edgekit.device.sinks.monitor import Monitor, MonitorSink

    network: list[Sink] = []
    monitor = Monitor(source.name, health)
    if outputs.web is not None:
        from edgekit.device.sinks.web import WebSink

        token = read_secret(outputs.web_token_file, "EDGEKIT_WEB_TOKEN", "web token", notify)
        blur = _blur(outputs, source)
        web = WebSink(outputs.web, token, monitor, max_fps=outputs.web_fps, blur=blur, notify=notify)
        network.append(web)
        say(f"web page: {web.url}")
    if outputs.mqtt is not None:
        from edgekit.device.sinks.mqtt import MqttSettings, MqttSink

        credentials = read_secret(
            outputs.mqtt_credentials, "EDGEKIT_MQTT_CREDENTIALS", "MQTT user and password", notify
        )
        settings = MqttSettings.parse(
            outputs.mqtt,
            credentials,
            topic=outputs.mqtt_topic,
            ca=outputs.mqtt_ca,
            certificate=outputs.mqtt_cert,
            key=outputs.mqtt_key,
            discovery=outputs.mqtt_discovery,
            buffer=outputs.mqtt_buffer,
            buffer_events=outputs.mqtt_buffer_events,
        )
        mqtt = MqttSink(settings, labels, monitor, notify)
        network.append(mqtt)
        outlets.append(mqtt)
    if outputs.webhook is not None:
        from edgekit.device.sinks.webhook import Webhook

        token = read_secret(outputs.webhook_token_file, "EDGEKIT_WEBHOOK_TOKEN", "webhook token", notify)
        webhook = Webhook(outputs.webhook, token, notify)
        network.append(webhook)
        outlets.append(webhook)
    sinks += [MonitorSink(monitor), ConcurrentGroup(network)]
    return [monitor, *outlets]


def _check_labels(outputs: Outputs, labels: Sequence[str]) -> None:
    from edgekit.errors import InputError

    for label in outputs.event_label:
        if label not in labels:
            raise InputError(f"--event-label '{label}' is no label of the model: it has {', '.join(labels)}")
