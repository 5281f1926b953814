"""The network sinks of `edgekit run`: web page, MQTT and webhook."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edgekit.cli.run.output_options import Outputs, allowed_commands
from edgekit.cli.run.pictures import draw_function, face_blur

if TYPE_CHECKING:
    from edgekit.device.accounting import Account
    from edgekit.device.events import Outlet
    from edgekit.device.pipeline.stream import Stream
    from edgekit.device.sink import Sink
    from edgekit.device.sinks.command_snapshots import CommandSnapshots
    from edgekit.device.sinks.monitor import Monitor, ReadHealth
    from edgekit.device.sinks.mqtt import MqttSink
    from edgekit.device.sinks.snapshots import EventSnapshots
    from edgekit.device.sinks.web import WebSink
    from edgekit.device.sinks.webhook import Webhook


def network_sinks(
    outputs: Outputs,
    stream: Stream,
    say: Callable[[str], None],
    notify: Callable[[str], None],
    health: ReadHealth,
    accounts: Callable[[], Sequence[Account]],
    snapshots: EventSnapshots | None,
    by_command: CommandSnapshots | None,
) -> tuple[list[Sink], list[Outlet]]:
    """Return the network sinks, and those that receive events; `accounts` returns those of all sinks."""
    if outputs.web is None and outputs.mqtt is None and outputs.webhook is None:
        return [], []
    from edgekit.device.sinks.monitor import Monitor, MonitorSink

    monitor = Monitor(stream.source.name, health, accounts, stream.controls)
    network: list[Sink] = [MonitorSink(monitor)]
    outlets: list[Outlet] = [monitor]
    web = None
    if outputs.web is not None:
        web = _web(outputs, outputs.web, stream, monitor, notify)
        network.append(web)
        say(f"web page: {web.url}")
    if outputs.mqtt is not None:
        mqtt = _mqtt(outputs, outputs.mqtt, stream, monitor, notify, snapshots, by_command, web)
        network.append(mqtt)
        outlets.append(mqtt)
    if outputs.webhook is not None:
        webhook = _webhook(outputs, outputs.webhook, notify, snapshots)
        network.append(webhook)
        outlets.append(webhook)
    return network, outlets


def check_web(outputs: Outputs) -> None:
    """Check the address and the token of --web.

    Raises:
        InputError: The address or the token cannot be used, or other machines reach the address without a token.
        TemporaryError: The name of the address cannot be resolved.
    """
    if outputs.web is None:
        return
    from edgekit.device.sinks.web.access import check_address

    check_address(outputs.web, _web_token(outputs, lambda _: None))


def _web_token(outputs: Outputs, notify: Callable[[str], None]) -> str | None:
    from edgekit.device.sinks.credentials import read_secret

    return read_secret(outputs.web_token_file, "EDGEKIT_WEB_TOKEN", "web token", notify)


def _web(outputs: Outputs, address: str, stream: Stream, monitor: Monitor, notify: Callable[[str], None]) -> WebSink:
    from edgekit.device.sinks.web import WebSink

    return WebSink(
        address,
        _web_token(outputs, notify),
        monitor,
        max_fps=outputs.web_fps,
        blur=face_blur(outputs, stream.source),
        draw=draw_function(outputs),
        recognise=stream.picture_recogniser(),
        notify=notify,
    )


def _mqtt(
    outputs: Outputs,
    url: str,
    stream: Stream,
    monitor: Monitor,
    notify: Callable[[str], None],
    snapshots: EventSnapshots | None,
    by_command: CommandSnapshots | None,
    web: WebSink | None,
) -> MqttSink:
    from edgekit.device.sinks.credentials import read_secret
    from edgekit.device.sinks.mqtt import Commands, MqttSettings, MqttSink

    credentials = read_secret(outputs.mqtt_credentials, "EDGEKIT_MQTT_CREDENTIALS", "MQTT user and password", notify)
    settings = MqttSettings.parse(
        url,
        credentials,
        topic=outputs.mqtt_topic,
        ca=outputs.mqtt_ca,
        certificate=outputs.mqtt_cert,
        key=outputs.mqtt_key,
        discovery=outputs.mqtt_discovery,
        buffer=outputs.mqtt_buffer,
        buffer_events=outputs.mqtt_buffer_events,
    )
    allowed = allowed_commands(outputs)
    take_snapshot = by_command.request if by_command is not None else None
    commands = Commands(allowed, stream.controls, take_snapshot, notify) if allowed else None
    contract = stream.classifier.contract
    return MqttSink(
        settings,
        contract.labels,
        monitor,
        notify,
        subject=contract.subject,
        read_snapshot=snapshots.jpeg if snapshots is not None and outputs.mqtt_snapshot else None,
        commands=commands,
        command_snapshots=by_command if outputs.mqtt_command_snapshot else None,
        page_url=web.url_for_others if web is not None else None,
    )


def _webhook(
    outputs: Outputs, address: str, notify: Callable[[str], None], snapshots: EventSnapshots | None
) -> Webhook:
    from edgekit.device.sinks.credentials import read_secret
    from edgekit.device.sinks.webhook import Webhook

    token = read_secret(outputs.webhook_token_file, "EDGEKIT_WEBHOOK_TOKEN", "webhook token", notify)
    read = snapshots.jpeg if snapshots is not None and outputs.webhook_snapshot else None
    return Webhook(address, token, notify, read)
