"""Bodies of requests, of limited size, and the check that a page itself has sent them."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response


async def read_body(request: Request, max_bytes: int) -> bytes | Response:
    """Return the body of a request, or the response to one that is too long or incomplete."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > max_bytes:
                return PlainTextResponse("request too long\n", 413)
    except ClientDisconnect:
        return PlainTextResponse("incomplete request\n", 400)
    return bytes(body)


def is_from_page(request: Request) -> bool:
    """Return whether a request can be from a page of this server: JSON, and from the server's own origin.

    A browser lets no other site send such a request.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    origin = request.headers.get("origin")
    same = origin is None or urlsplit(origin).netloc == request.headers.get("host")
    return same and media_type == "application/json"
