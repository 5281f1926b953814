"""Web server of a page, in its own thread. No other module imports uvicorn or h11."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Self

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from edgekit.device.annotate import Draw, draw_faces
from edgekit.device.blur import FaceBlur
from edgekit.device.detections import FrameResult
from edgekit.device.frame import Frame
from edgekit.device.sink import Sink
from edgekit.device.sinks.monitor import Monitor
from edgekit.device.sinks.web.access import Access, bind, url_for_others, url_of
from edgekit.device.sinks.web.app import ADMITTED, make_app
from edgekit.device.sinks.web.classify import Recognise
from edgekit.device.sinks.web.preview import Preview
from edgekit.device.sinks.worker import Worker

_MAX_CONNECTIONS = 200
# The rest of the connections is for viewers: clients that have sent a request with the token, or where there is no
# token, any request that names this machine.
_MAX_UNKNOWN_CONNECTIONS = 100
# Time limit for the arrival of a request, from the start of the connection, or on a reused connection from the first
# byte of the request.
_REQUEST_TIMEOUT_S = 10.0
_CLOSE_TIMEOUT_S = 0.4


class WebServer:
    """Serves an application in a thread, for the duration of a `with` block."""

    def __init__(self, address: str, token: str | None, app: Any, notify: Callable[[str], None]) -> None:
        """Listen at `address`; entering the `with` block starts the server.

        Args:
            address: HOST:PORT, HOST or PORT.
            token: Token that viewers must send; None admits this machine only.
            app: The ASGI application; it checks the token.
            notify: Called with one line for each warning, from another thread.

        Raises:
            InputError: The address cannot be used, or is reachable from other machines without a token.
        """
        self._listener = bind(address, token)
        self.url = url_of(self._listener)
        config = uvicorn.Config(
            app,
            http=RequestTimeoutProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
        )
        self._server = uvicorn.Server(config)
        self._thread = Worker(lambda: asyncio.run(self._serve()), "web")
        self._log_handler = _OneLineHandler(notify)

    def __enter__(self) -> Self:
        logger = logging.getLogger("uvicorn.error")
        logger.addHandler(self._log_handler)
        logger.propagate = False
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop the server."""
        self._log_handler.muted = True
        self._server.should_exit = True
        self._thread.join(_CLOSE_TIMEOUT_S)
        # A viewer that reads nothing would delay a graceful shutdown.
        self._server.force_exit = True
        self._thread.join(_CLOSE_TIMEOUT_S)
        self._listener.close()
        logging.getLogger("uvicorn.error").removeHandler(self._log_handler)

    def url_for_others(self, own_address: str) -> str | None:
        """Return the page's URL for other machines, in whose network this one has `own_address`; None without one."""
        return url_for_others(self._listener, own_address)

    def check(self) -> None:
        """Raise the exception that ended the server, if there was one."""
        self._thread.check()

    async def _serve(self) -> None:
        await self._server.serve(sockets=[self._listener])
        # Connections with unsent data are still open.
        for connection in list(self._server.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()
        await asyncio.sleep(0)


class WebSink(WebServer, Sink):
    """Serves the web page of a run; `write` stores a reference to the frame and never waits for a viewer."""

    def __init__(
        self,
        address: str,
        token: str | None,
        monitor: Monitor,
        *,
        max_fps: float = 10.0,
        blur: FaceBlur | None = None,
        draw: Draw = draw_faces,
        recognise: Recognise | None = None,
        notify: Callable[[str], None],
    ) -> None:
        """Listen at `address`; entering the `with` block starts the server.

        Args:
            address: HOST:PORT, HOST or PORT.
            token: Token that viewers must send; None admits this machine only.
            monitor: Provides everything except the video.
            max_fps: Highest frame rate of the video.
            blur: Makes faces unrecognisable; must not be shared with another sink.
            draw: Draws the faces into a frame.
            recognise: Returns the result of a picture that a client posts; None: the server takes no pictures.
            notify: Called with one line for each warning, from another thread.

        Raises:
            InputError: The address cannot be used, or is reachable from other machines without a safe token.
        """
        self.preview = Preview(max_fps, blur, draw)
        super().__init__(address, token, make_app(Access(token), monitor, self.preview, recognise), notify)

    def __enter__(self) -> Self:
        self.preview.start()
        return super().__enter__()

    def end(self) -> None:
        """Let the server and all streams end, without waiting for them."""
        self._log_handler.muted = True
        self._server.should_exit = True
        self.preview.end()

    def __exit__(self, *exception: object) -> None:
        """End all streams and stop the server."""
        self._log_handler.muted = True
        self.preview.stop()
        super().__exit__(*exception)

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Show the frame; the page reads its result from the monitor."""
        self.check()
        self.preview.offer(frame, result)


class RequestTimeoutProtocol(H11Protocol):
    """Closes connections whose request times out or that exceed the connection limits.

    Above a limit the oldest connection without an admitted request is closed, not the new one: a viewer's request
    arrives soon after its connection, while a client that holds connections open without requests always has the
    oldest. uvicorn's own limit counts complete requests only, and its own timer runs between requests only. Neither
    stops a client that never completes its request.
    """

    _timer: asyncio.TimerHandle | None = None
    _accepted_s = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer, and close the oldest unknown connection above a limit."""
        super().connection_made(transport)
        self._accepted_s = self.loop.time()
        self._update_timer()
        open_ones = [one for one in self.connections if not one.transport.is_closing()]
        unknown = [one for one in open_ones if isinstance(one, RequestTimeoutProtocol) and not one.is_admitted]
        if len(unknown) > _MAX_UNKNOWN_CONNECTIONS or len(open_ones) > _MAX_CONNECTIONS:
            min(unknown, key=lambda one: one._accepted_s).transport.abort()

    @property
    def is_admitted(self) -> bool:
        """Whether the latest request of the connection was admitted."""
        return self.scope is not None and bool(self.scope.get(ADMITTED))

    def data_received(self, data: bytes) -> None:
        """Stop the timer once the request is complete."""
        super().data_received(data)
        self._update_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._cancel_timer()
        super().connection_lost(exc)

    def _update_timer(self) -> None:
        # While head or body are incomplete the timer runs; further bytes do not restart it.
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._cancel_timer()
        elif self._timer is None:
            self._timer = self.loop.call_later(_REQUEST_TIMEOUT_S, self.transport.abort)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _OneLineHandler(logging.Handler):
    """Reports each distinct error of the server once, in one line."""

    def __init__(self, notify: Callable[[str], None]) -> None:
        super().__init__(logging.ERROR)
        self._notify = notify
        # Set at the end of a run, when connections are aborted on purpose.
        self.muted = False
        self._reported: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        text = record.getMessage().partition("\n")[0] + (f" ({type(error).__name__}: {error})" if error else "")
        if text not in self._reported and not self.muted:
            self._reported.add(text)
            self._notify(f"web page: {text}")
