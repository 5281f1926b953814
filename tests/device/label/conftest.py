"""A labelling page with an HTTP client."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from edgekit.device.label import label_page
from edgekit.device.label.store import LabelStore
from edgekit.device.sinks.web.server import WebServer
from tests.device.http_client import request


class Client:
    """Sends requests to a page; `store` is the label store of the page."""

    def __init__(self, page: WebServer, store: LabelStore) -> None:
        self.url, self.store = page.url, store

    def request(self, method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, bytes]:
        """Return status and body of one request."""
        status, _, content = request(self.url, method, path, body, **headers)
        return status, content

    def state(self) -> dict[str, Any]:
        """Return the page's state."""
        return json.loads(self.request("GET", "/api/state")[1])

    def post(self, path: str, **body: Any) -> tuple[int, dict[str, Any]]:
        """Send a change like the page; return the status and document of the response."""
        status, answer = self.request("POST", path, json.dumps(body), Content_Type="application/json")
        return status, json.loads(answer)


@pytest.fixture
def label(tmp_path: Path, notices: list[str]) -> Iterator[Callable[..., Client]]:
    """Serve the page for `tmp_path`/c; a second call restarts it."""
    with ExitStack() as stack:

        def serve(token: str | None = None, address: str = "127.0.0.1:0", **options: Any) -> Client:
            stack.pop_all().close()
            store = LabelStore(tmp_path / "c", notify=notices.append, **options)
            return Client(stack.enter_context(label_page(store, address, token)), store)

        yield serve
