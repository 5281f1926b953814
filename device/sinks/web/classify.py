"""`POST /classify`: a picture in, its faces out, as in the records of a run."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from edgekit.device.detections import FrameResult
from edgekit.device.sinks.jsonl import as_document
from edgekit.device.sinks.web.body import read_body
from edgekit.errors import EdgekitError
from edgekit.text import one_line

Recognise: TypeAlias = Callable[[bytes], FrameResult]

MAX_BYTES = 10_000_000
# Browsers send these types to another site only with its consent, so that no foreign page can occupy the board.
_TYPES = ("image/jpeg", "image/png")
# Pictures that arrive or wait, which bounds the memory, and pictures per second.
_MAX_WAITING = 4
_MAX_PER_S = 5


class Classify:
    """The route's handler. One picture is processed at a time, in another thread than the server's."""

    def __init__(self, recognise: Recognise) -> None:
        self._recognise = recognise
        self._waiting = 0
        self._started_s: deque[float] = deque(maxlen=_MAX_PER_S)

    async def post(self, request: Request) -> Response:
        """Return the faces of the picture in the body, or the reason why it is refused."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() not in _TYPES:
            return PlainTextResponse(f"the content type must be {' or '.join(_TYPES)}\n", 415)
        now_s = time.monotonic()
        is_fast = len(self._started_s) == _MAX_PER_S and now_s - self._started_s[0] < 1
        if is_fast or self._waiting >= _MAX_WAITING:
            return PlainTextResponse("too many pictures: try again later\n", 429, headers={"Retry-After": "1"})
        self._started_s.append(now_s)
        self._waiting += 1
        try:
            body = await read_body(request, MAX_BYTES)
            if isinstance(body, Response):
                return body
            result = await run_in_threadpool(self._recognise, body)
        except EdgekitError as error:
            return PlainTextResponse(f"{one_line(str(error))}\n", 400)
        finally:
            self._waiting -= 1
        return JSONResponse(as_document(result))
