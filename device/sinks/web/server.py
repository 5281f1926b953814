"""The web page's server in a thread of its own: the only module that knows uvicorn and h11."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Self

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from edgekit.device.blur import FaceBlur
from edgekit.device.detections import FrameResult
from edgekit.device.frame import Frame
from edgekit.device.sinks.monitor import Monitor
from edgekit.device.sinks.web.access import Access, bind, url_of
from edgekit.device.sinks.web.app import make_app
from edgekit.device.sinks.web.preview import Preview
from edgekit.device.sinks.worker import Worker

_MOST_CONNECTIONS = 200
# How long a request may take to arrive, from the connection's or its own first byte on.
_REQUEST_S = 10.0
_LEAVE_S = 0.4


class WebSink:
    """Shows the run on a web page; the pipeline hands it a reference a frame and never waits for a viewer."""

    def __init__(
        self,
        address: str,
        token: str | None,
        monitor: Monitor,
        *,
        max_fps: float = 10.0,
        blur: FaceBlur | None = None,
        notify: Callable[[str], None],
    ) -> None:
        """Listen at `address`; nobody is answered before the `with` block.

        Args:
            address: HOST:PORT, HOST or PORT.
            token: What viewers must know; without one only this machine's may look.
            monitor: Where everything but the pictures comes from.
            max_fps: Most pictures a second.
            blur: Hides faces; of this page alone.
            notify: Called with one line where the user should know something.

        Raises:
            InputError: The address cannot be used, or is open to others without a good token.
        """
        access = Access(token)
        self._listener = bind(address, token)
        self.url = url_of(self._listener)
        self.preview = Preview(max_fps, blur)
        config = uvicorn.Config(
            make_app(access, monitor, self.preview),
            http=RequestTimeoutProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_MOST_CONNECTIONS,
        )
        self._server = uvicorn.Server(config)
        self._thread = Worker(lambda: asyncio.run(self._serve()), "web")
        self._log = _OneLine(notify)

    def __enter__(self) -> Self:
        logger = logging.getLogger("uvicorn.error")
        logger.addHandler(self._log)
        logger.propagate = False
        self.preview.start()
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Say goodbye to all viewers."""
        self._log.muted = True
        self.preview.stop()
        self._server.should_exit = True
        self._thread.join(_LEAVE_S)
        # A viewer who takes nothing, goodbyes neither.
        self._server.force_exit = True
        self._thread.join(_LEAVE_S)
        self._listener.close()
        logging.getLogger("uvicorn.error").removeHandler(self._log)

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Take the newest frame; its result comes by way of the monitor."""
        self._thread.check()
        self.preview.offer(frame, result)

    async def _serve(self) -> None:
        await self._server.serve(sockets=[self._listener])
        # Those who took nothing more are still connected, with what was under way to them.
        for connection in list(self._server.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()
        await asyncio.sleep(0)


class RequestTimeoutProtocol(H11Protocol):
    """Leaves clients whose request does not arrive, and those that come when there are too many.

    The server's own limit is looked at when a request is complete, so that the silent would not count, and its own
    timer runs between requests only.
    """

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > _MOST_CONNECTIONS:
            transport.abort()
        else:
            self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._relax()
        super().connection_lost(exc)

    def _watch(self) -> None:
        # Head or body are still to come. Further bytes of the same request do not win it more time.
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._relax()
        elif self._timer is None:
            self._timer = self.loop.call_later(_REQUEST_S, self.transport.abort)

    def _relax(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _OneLine(logging.Handler):
    """Tells each kind of the server's troubles once, in one line."""

    def __init__(self, notify: Callable[[str], None]) -> None:
        super().__init__(logging.ERROR)
        self._notify = notify
        # What breaks off at the end of a run is meant to.
        self.muted = False
        self._told: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        text = record.getMessage().partition("\n")[0] + (f" ({type(error).__name__}: {error})" if error else "")
        if text not in self._told and not self.muted:
            self._told.add(text)
            self._notify(f"web page: {text}")
