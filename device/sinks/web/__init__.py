"""Results on a web page."""

from __future__ import annotations

from edgekit.device.sinks.web.server import WebSink

__all__ = ["WebSink"]
