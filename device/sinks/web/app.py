"""HTTP application of the web page of a run; its static files, login and guard also serve the page for labelling."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.parse
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request, cookie_parser
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgekit.device.detections import FrameResult
from edgekit.device.sinks.jsonl import as_document
from edgekit.device.sinks.monitor import CONTENT_TYPE, Monitor, metrics_text
from edgekit.device.sinks.web.access import Access, read_body
from edgekit.device.sinks.web.clips import ClipRoutes
from edgekit.device.sinks.web.preview import EncodedImage, Preview
from edgekit.device.sinks.web.teach import TEACH_FILES, TeachRoutes
from edgekit.errors import EdgekitError
from edgekit.text import one_line

if TYPE_CHECKING:
    from edgekit.device.teach.session import TeachSession

Recognise: TypeAlias = Callable[[bytes], FrameResult]

FOLDER = Path(__file__).parent
# For each path: the files that are concatenated, and the media type.
Files: TypeAlias = Mapping[str, tuple[Sequence[Path], str]]
_LOGIN_FILES: Files = {
    "/login": ((FOLDER / "head.html", FOLDER / "login.html"), "text/html"),
    "/icon.svg": ((FOLDER / "icon.svg",), "image/svg+xml"),
}
_FILES: Files = {
    "/": ((FOLDER / "head.html", FOLDER / "page.html"), "text/html"),
    "/page.js": ((FOLDER / "page.js", FOLDER / "zones.js"), "text/javascript"),
    "/page.css": ((FOLDER / "page.css",), "text/css"),
}
# Available without a token.
_PUBLIC_PATHS = frozenset({"/login", "/page.css", "/icon.svg", "/healthz"})
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'self'; "
    "script-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_UPDATE_S = 0.5
STALLED_AFTER_S = 10.0
# Time after which an image is sent once more, if there is no newer one.
_REPEAT_AFTER_S = 0.25
_MAX_VIEWERS = 32
_MAX_LOGIN_BYTES = 4096
_WRONG_TOKEN_QUERY = "wrong"
_COOKIE_LIFETIME_S = 30 * 86_400
_BOUNDARY = "edgekit-frame"


# Of `POST /classify`.
MAX_PICTURE_BYTES = 10_000_000
# Browsers send these types to another site only with its consent, so that no foreign page can occupy the board.
_PICTURE_TYPES = ("image/jpeg", "image/png")
# Pictures that arrive or wait, which bounds the memory, and pictures per second.
_MAX_PICTURES_WAITING = 4
_MAX_PICTURES_PER_S = 5


def make_app(
    access: Access,
    monitor: Monitor,
    preview: Preview,
    recognise: Recognise | None = None,
    teaching: TeachSession | None = None,
    clips: Path | None = None,
) -> ASGIApp:
    """Return the application with the page, video, state, state stream, metrics, health check and login.

    With `recognise` it also has the classification of single pictures, with `teaching` the tab "Teach", and with
    `clips` the videos of events in this folder.
    """
    web = _Web(monitor, preview, {"teaches": teaching is not None, "has_clips": clips is not None})
    files = _FILES if teaching is None else {**_FILES, **TEACH_FILES}  # by the path of their address
    routes = [
        *Site(access, files).routes(),
        Route("/stream.mjpg", web.video),
        Route("/api/state", web.state),
        Route("/api/events", web.events),
        Route("/metrics", web.metrics),
        Route("/healthz", web.healthz),
    ]
    if recognise is not None:
        routes.append(Route("/classify", _Classify(recognise).post, methods=["POST"]))
    if teaching is not None:
        routes += TeachRoutes(teaching, lambda: preview.closing).routes()
    if clips is not None:
        routes += ClipRoutes(clips).routes()
    return Guard(Starlette(routes=routes), access)


class Site:
    """The static files of a page, and its login."""

    def __init__(self, access: Access, files: Files) -> None:
        files = {**_LOGIN_FILES, **files}
        self._access = access
        self._contents = {path: b"".join(file.read_bytes() for file in parts) for path, (parts, _) in files.items()}
        self._media_types = {path: media_type for path, (_, media_type) in files.items()}

    def routes(self) -> list[Route]:
        """Return the routes of the files and of the login."""
        files = [Route(path, self._file, name=path) for path in self._contents]
        return [*files, Route("/login", self._log_in, methods=["POST"])]

    async def _file(self, request: Request) -> Response:
        path = request.url.path
        content = self._contents[path]
        if path == "/login" and request.url.query == _WRONG_TOKEN_QUERY:
            content = content.replace(b"<label", b'<p class="pill bad">Wrong token</p>\n<label', 1)
        return Response(content, media_type=self._media_types[path])

    async def _log_in(self, request: Request) -> Response:
        """Lead to the page with the cookie if the form has the right token, otherwise to the login again."""
        body = await read_body(request, _MAX_LOGIN_BYTES)
        if isinstance(body, Response):  # too long or incomplete
            return body
        token = urllib.parse.parse_qs(body.decode(errors="replace")).get("token", [""])[0].strip()
        if self._access.needs_token and not self._access.is_token(token.encode()):
            return RedirectResponse(f"/login?{_WRONG_TOKEN_QUERY}", 303)
        response = RedirectResponse("/", 303)
        if self._access.needs_token:
            # Not "strict", with which a link from another site, such as Home Assistant, would lead to the login.
            response.set_cookie(
                self._access.cookie_name, self._access.cookie, _COOKIE_LIFETIME_S, httponly=True, samesite="lax"
            )
        return response


class _Web:
    def __init__(self, monitor: Monitor, preview: Preview, parts: Mapping[str, bool]) -> None:
        self._monitor = monitor
        self._preview = preview
        self._parts = parts

    async def video(self, _: Request) -> Response:
        if self._preview.viewers >= _MAX_VIEWERS:
            return PlainTextResponse(f"too many viewers: the limit is {_MAX_VIEWERS}\n", 503)
        return StreamingResponse(self._mjpeg(), media_type=f"multipart/x-mixed-replace; boundary={_BOUNDARY}")

    async def _mjpeg(self) -> AsyncIterator[bytes]:
        """Yield the newest image again and again: a slow viewer gets fewer images, not old ones."""
        # Checked again: simultaneous requests pass the first check before any of them is counted.
        if self._preview.viewers >= _MAX_VIEWERS:
            return
        self._preview.viewers += 1
        try:
            sent: EncodedImage | None = None
            repeat_at_s = float("inf")
            while not self._preview.closing:
                image = await run_in_threadpool(self._preview.newest)
                is_new = image is not sent
                if image is not None and (is_new or time.monotonic() >= repeat_at_s):
                    # An image is repeated once, because browsers show it when the next one begins.
                    repeat_at_s = time.monotonic() + _REPEAT_AFTER_S if is_new else float("inf")
                    sent = image
                    head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(image.jpeg)}\r\n\r\n"
                    yield head.encode() + image.jpeg + b"\r\n"
                await asyncio.sleep(self._preview.period_s)
        finally:
            self._preview.viewers -= 1

    async def state(self, _: Request) -> Response:
        return JSONResponse(self._document())

    async def events(self, _: Request) -> Response:
        return StreamingResponse(self._updates(), media_type="text/event-stream")

    async def _updates(self) -> AsyncIterator[str]:
        while not self._preview.closing:
            yield f"data: {json.dumps(self._document(), allow_nan=False)}\n\n"
            await asyncio.sleep(_UPDATE_S)

    def _document(self) -> dict[str, Any]:
        document = self._monitor.document()
        document["viewers"] = self._preview.viewers
        document["stalled"] = self._is_stalled()
        document.update(self._parts)
        return document

    async def metrics(self, _: Request) -> Response:
        text = metrics_text(self._monitor, self._preview.viewers, self._preview.encoded)
        return Response(text, headers={"Content-Type": CONTENT_TYPE})

    async def healthz(self, _: Request) -> Response:
        stalled = self._is_stalled()
        return PlainTextResponse("stalled\n" if stalled else "ok\n", 503 if stalled else 200)

    def _is_stalled(self) -> bool:
        return self._monitor.is_stalled(STALLED_AFTER_S)


class _Classify:
    """`POST /classify`: a picture in, its faces out, as in the records of a run.

    One picture is processed at a time, in another thread than the server's.
    """

    def __init__(self, recognise: Recognise) -> None:
        self._recognise = recognise
        # Number of requests that arrive or wait, and the times of the latest ones.
        self._waiting = 0
        self._started_s: deque[float] = deque(maxlen=_MAX_PICTURES_PER_S)

    async def post(self, request: Request) -> Response:
        """Return the faces of the picture in the body, or the reason why it is refused."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() not in _PICTURE_TYPES:
            return PlainTextResponse(f"the content type must be {' or '.join(_PICTURE_TYPES)}\n", 415)
        now_s = time.monotonic()
        # As many as are allowed per second have come, the first of them less than a second ago.
        is_fast = len(self._started_s) == _MAX_PICTURES_PER_S and now_s - self._started_s[0] < 1
        if is_fast or self._waiting >= _MAX_PICTURES_WAITING:
            return PlainTextResponse("too many pictures: try again later\n", 429, headers={"Retry-After": "1"})
        self._started_s.append(now_s)
        self._waiting += 1
        try:
            body = await read_body(request, MAX_PICTURE_BYTES)
            if isinstance(body, Response):
                return body
            result = await run_in_threadpool(self._recognise, body)
        except EdgekitError as error:
            return PlainTextResponse(f"{one_line(str(error))}\n", 400)
        finally:
            self._waiting -= 1
        return JSONResponse(as_document(result))


class Guard:
    """Rejects requests that are not admitted, and adds the security headers to every response."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to a request, or pass it to the application."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        app: ASGIApp = self._app
        if scope["type"] == "http" and not self._admits(scope):
            app = self._rejection(scope)
        await app(scope, receive, send_with_headers)

    def _admits(self, scope: Scope) -> bool:
        headers = Headers(scope=scope)
        cookie = cookie_parser(headers.get("cookie", "")).get(self._access.cookie_name, "")
        is_public = self._access.needs_token and scope["path"] in _PUBLIC_PATHS
        return is_public or self._access.admits(headers.get("authorization", ""), cookie, headers.get("host", ""))

    def _rejection(self, scope: Scope) -> Response:
        if not self._access.needs_token:
            return PlainTextResponse("this page is available as localhost only\n", 421)
        if scope["path"] in ("/", "/teach"):
            return RedirectResponse("/login", 303)
        return PlainTextResponse("a token is required\n", 401, headers={"WWW-Authenticate": "Bearer"})
