"""Fixtures for the tests of sinks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest


@pytest.fixture
def listen(broker) -> Iterator[Callable[[], Any]]:
    """Start the broker, and return a function that subscribes to all topics until the end of the test."""
    broker.start()
    with ExitStack() as stack:
        yield lambda: broker.listen(stack)
