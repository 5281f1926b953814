"""An HTTP client for the pages that a run serves."""

from __future__ import annotations

import http.client
from contextlib import closing
from urllib.parse import urlsplit

PATIENCE_S = 60


def request(
    url: str, method: str, path: str, body: bytes | str | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Send one request, and return status, headers and body; "_" in the name of a header stands for "-"."""
    address = urlsplit(url)
    with closing(http.client.HTTPConnection(str(address.hostname), address.port or 80, PATIENCE_S)) as connection:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
