"""What can be chosen by name: sources, detectors, trackers and sinks, edgekit's own and those of other packages.

One line here registers one of edgekit's own. Another package registers its with an entry point in the group
`edgekit.sources`, `edgekit.detectors`, `edgekit.trackers` or `edgekit.sinks` (docs/extending.md has an example).
Nothing is loaded before it is asked for by name.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, TypeAlias

from edgekit.errors import InputError

Kind: TypeAlias = Literal["source", "detector", "tracker", "sink"]

_STREAMS = ("http", "https", "rtsp", "rtsps", "rtmp", "srt", "tcp", "udp")

# Name → module and function that makes it; what it is called with, and what it returns, stands in docs/extending.md.
_OWN: dict[Kind, dict[str, str]] = {
    "source": {
        "demo": "edgekit.device.sources.demo:open_demo",
        "gst": "edgekit.device.sources.opencv:open_gstreamer",
        **dict.fromkeys(_STREAMS, "edgekit.device.sources.opencv:open_stream"),
    },
    "detector": {
        "yunet": "edgekit.device.detection:create_yunet",
        "haar": "edgekit.device.detection:create_haar",
        "none": "edgekit.device.detection:create_whole_frame",
    },
    "tracker": {
        "flow": "edgekit.device.tracking.optical_flow:create",
    },
    # Edgekit's own have options of their own (edgekit/cli/run/output_options.py).
    "sink": {},
}


def own_names(kind: Kind) -> tuple[str, ...]:
    """Return the names of edgekit's own, without looking for others."""
    return tuple(_OWN[kind])


def names(kind: Kind) -> tuple[str, ...]:
    """Return all names that `find` knows, edgekit's own first."""
    others = sorted(point.name for point in _others(kind) if point.name not in _OWN[kind])
    return (*_OWN[kind], *dict.fromkeys(others))


def find(kind: Kind, name: str) -> Callable[..., Any]:
    """Return what makes the source, detector, tracker or sink of that name.

    Raises:
        InputError: Nobody has registered it, two packages have, or the one that has cannot be loaded.
    """
    own = _OWN[kind].get(name)
    if own is not None:
        module, _, function = own.partition(":")
        return getattr(importlib.import_module(module), function)  # type: ignore[no-any-return]
    found = {(point.value, _package(point)): point for point in _others(kind) if point.name == name}
    if not found:
        known = ", ".join(names(kind))
        cure = f"choose one of {known}" if known else f"no package here brings a {kind} (docs/extending.md)"
        raise InputError(f"{kind} '{name}' does not exist: {cure}")
    if len(found) > 1:
        packages = " and ".join(sorted(package for _, package in found))
        raise InputError(f"{kind} '{name}' is registered by {packages}: remove one of them")
    ((_, package), point) = found.popitem()
    try:
        factory = point.load()
    except Exception as error:  # whatever a stranger's module raises while it is imported
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{kind} '{name}' of package '{package}' cannot be loaded ({reason}): repair it") from error
    if not callable(factory):
        raise InputError(f"{kind} '{name}' of package '{package}' is no function: its entry point names {point.value}")
    return factory  # type: ignore[no-any-return]


def _others(kind: Kind) -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=f"edgekit.{kind}s"))


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value
