"""Web server of a page, in its own thread. No other module imports uvicorn."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import uvicorn

from edgekit.device.annotate import Hide, hide_nothing
from edgekit.device.detections import FrameResult
from edgekit.device.frame import Frame
from edgekit.device.sink import Sink
from edgekit.device.sinks.monitor import Monitor
from edgekit.device.sinks.web.access import Access, bind, url_of
from edgekit.device.sinks.web.app import Recognise, make_app
from edgekit.device.sinks.web.preview import Preview
from edgekit.device.stages import Worker

if TYPE_CHECKING:
    from edgekit.device.teach.session import TeachSession

# More connections get status 503. A browser opens up to six.
_MAX_CONNECTIONS = 200
_CLOSE_TIMEOUT_S = 0.4


class WebServer:
    """Serves an application in a thread, for the duration of a `with` block."""

    def __init__(self, address: str, token: str | None, app: Any) -> None:
        """Listen at `address`; entering the `with` block starts the server.

        Args:
            address: HOST:PORT, HOST or PORT.
            token: Token that viewers must send; None admits this machine only.
            app: The ASGI application; it checks the token.

        Raises:
            InputError: The address cannot be used, or is reachable from other machines without a token.
        """
        self._listener = bind(address, token)
        self.url = url_of(self._listener)
        # Plain HTTP/1.1 without logs. Headers of a proxy are ignored, because any client can send them.
        config = uvicorn.Config(
            app,
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_MAX_CONNECTIONS,
        )
        self._server = uvicorn.Server(config)
        self._thread = Worker(lambda: asyncio.run(self._serve()), "web")

    def __enter__(self) -> Self:
        # Its messages are for developers. A client gets the status 500.
        logging.getLogger("uvicorn.error").disabled = True
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop the server."""
        self._server.should_exit = True  # polled by uvicorn
        self._thread.join(_CLOSE_TIMEOUT_S)
        # A viewer that reads nothing would delay a graceful shutdown.
        self._server.force_exit = True
        self._thread.join(_CLOSE_TIMEOUT_S)
        self._listener.close()

    def check(self) -> None:
        """Raise the exception that ended the server, if there was one."""
        self._thread.check()

    async def _serve(self) -> None:
        """Serve until `__exit__`, then close all connections; this is the work of the thread."""
        await self._server.serve(sockets=[self._listener])
        # Connections with unsent data are still open.
        for connection in list(self._server.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()
        await asyncio.sleep(0)  # lets the event loop close them


class WebSink(WebServer, Sink):
    """Serves the web page of a run; `write` stores a reference to the frame and never waits for a viewer."""

    def __init__(
        self,
        address: str,
        token: str | None,
        monitor: Monitor,
        *,
        max_fps: float = 10.0,
        blur: Hide = hide_nothing,
        recognise: Recognise | None = None,
        teaching: TeachSession | None = None,
        clips: Path | None = None,
    ) -> None:
        """Listen at `address`; entering the `with` block starts the server.

        Args:
            address: HOST:PORT, HOST or PORT.
            token: Token that viewers must send; None admits this machine only.
            monitor: Provides everything except the video.
            max_fps: Highest frame rate of the video.
            blur: Returns the boxes to hide in each frame; not shared with another sink, because it keeps boxes of
                earlier calls.
            recognise: Returns the result of a picture that a client posts; None: the server takes no pictures.
            teaching: The session of the tab "Teach"; None: there is no such tab.
            clips: The folder of the videos of events; None: there are none.

        Raises:
            InputError: The address cannot be used, or is reachable from other machines without a safe token.
        """
        self.preview = Preview(max_fps, blur)
        super().__init__(address, token, make_app(Access(token), monitor, self.preview, recognise, teaching, clips))

    def end(self) -> None:
        """Let the server and all streams end, without waiting for them."""
        self._server.should_exit = True
        self.preview.closing = True

    def __exit__(self, *exception: object) -> None:
        """End all streams and stop the server."""
        self.end()
        super().__exit__(*exception)

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Show the frame; the page reads its result from the monitor."""
        self.check()
        self.preview.offer(frame, result)
