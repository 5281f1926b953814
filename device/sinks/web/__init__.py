"""Web page of a run: video, state, metrics."""

from __future__ import annotations

from edgekit.device.sinks.web.server import WebSink

__all__ = ["WebSink"]
