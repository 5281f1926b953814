"""The demo without an end, for runs that a test stops: on a busy machine, the demo's six seconds can be too short."""

from __future__ import annotations

# Statements for a process that then runs the command line.
ENDLESS_DEMO = "from edgekit.device.sources.demo import DemoSource; DemoSource.frame_count = 10**9; "
