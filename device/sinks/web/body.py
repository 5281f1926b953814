"""Bodies of requests, of limited size."""

from __future__ import annotations

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
