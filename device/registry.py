"""Registry of engines, sources, detectors, trackers and sinks by name.

Built-in components are registered in this module. Other packages register theirs with entry points in the groups
`edgekit.engines`, `edgekit.sources`, `edgekit.detectors`, `edgekit.trackers` and `edgekit.sinks`;
docs/how-to/extending.md has examples. An engine's name is the suffix of its files without the dot.
A component is imported when it is requested by name.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from edgekit.errors import InputError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Kind: TypeAlias = Literal["engine", "source", "detector", "tracker", "sink"]

_STREAMS = ("http", "https", "rtsp", "rtsps", "rtmp", "srt", "tcp", "udp")

# Module and factory function of each name; docs/how-to/extending.md describes arguments and return values.
_OWN: dict[Kind, dict[str, str]] = {
    "engine": {
        "onnx": "edgekit.device.engines.session:OnnxRuntimeEngine",
        "ncnn": "edgekit.device.engines.ncnn_engine:NcnnEngine",
    },
    "source": {
        "demo": "edgekit.device.sources.demo:open_demo",
        **dict.fromkeys(_STREAMS, "edgekit.device.sources.opencv:open_stream"),
    },
    "detector": {
        "yunet": "edgekit.device.detection:create_yunet",
        "haar": "edgekit.device.detection:create_haar",
        "none": "edgekit.device.detection:create_whole_frame",
    },
    "tracker": {"flow": "edgekit.device.tracking.optical_flow:create"},
    # Classes of options (`device.sink.SinkOptions`), in the order in which a run opens the sinks: those that others use
    # come first.
    "sink": {
        "files": "edgekit.device.sinks.outputs:OutputOptions",
        "save": "edgekit.device.sinks.save:SaveOptions",
        "record": "edgekit.device.sinks.record:RecordOptions",
        "publish": "edgekit.device.sinks.publish:PublishOptions",
        "jsonl": "edgekit.device.sinks.jsonl:JsonLinesOptions",
        "csv": "edgekit.device.sinks.csv:CsvOptions",
        "collect": "edgekit.device.sinks.collect:CollectOptions",
        "teach": "edgekit.device.sinks.teach:TeachTabOptions",
        "clips": "edgekit.device.sinks.clips:ClipOptions",
        "web": "edgekit.device.sinks.web:WebOptions",
        "events": "edgekit.device.sinks.events:EventOptions",
        "gpio": "edgekit.device.sinks.gpio:GpioOptions",
        "mqtt": "edgekit.device.sinks.mqtt:MqttOptions",
        "webhook": "edgekit.device.sinks.webhook:WebhookOptions",
        "window": "edgekit.device.sinks.window:WindowOptions",
    },
}


def own_names(kind: Kind) -> tuple[str, ...]:
    """Return the names of the built-in components, without searching other packages."""
    return tuple(_OWN[kind])


def names(kind: Kind) -> tuple[str, ...]:
    """Return all registered names, built-in ones first."""
    others = {point.name for point in _others(kind)} - _OWN[kind].keys()
    return (*_OWN[kind], *sorted(others))


def find(kind: Kind, name: str) -> Callable[..., Any]:
    """Return the factory function of an engine, source, detector, tracker or sink.

    Raises:
        InputError: The name is not registered, or its package cannot be imported.
    """
    own = _OWN[kind].get(name)
    if own is not None:
        module, _, function = own.partition(":")  # imported only when used: some need optional packages
        return getattr(importlib.import_module(module), function)  # type: ignore[no-any-return]
    point = next((point for point in _others(kind) if point.name == name), None)
    if point is None:
        raise InputError(f"{kind} '{name}' does not exist: use one of {', '.join(names(kind))}")
    try:
        return point.load()  # type: ignore[no-any-return]
    except Exception as error:  # the import runs code of another package
        package = point.dist.name if point.dist is not None else point.value
        reason = f"{type(error).__name__}: {error}"
        raise InputError(
            f"{kind} '{name}' of package '{package}' cannot be imported ({reason}): reinstall it"
        ) from error


def _others(kind: Kind) -> tuple[EntryPoint, ...]:
    """Return the entry points with which other packages register components."""
    from importlib.metadata import entry_points  # takes 20 ms to import on a PC, several times as long on a Pi

    return tuple(entry_points(group=f"edgekit.{kind}s"))
