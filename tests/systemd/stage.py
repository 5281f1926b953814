"""Common parts of the scenarios: a stream of images, the output of steps."""

from __future__ import annotations

import json
import threading
from typing import Any

from tests.conftest import Stream

PATIENCE_S = 60


def serve() -> str:
    """Start an endless stream of images and return its URL."""
    server = Stream([[("pictures", 1_000_000, (64, 48))]])
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.url


def print_step(step: str, **facts: Any) -> None:
    print(json.dumps({"step": step, **facts}), flush=True)
