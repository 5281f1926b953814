"""The routes of the tab "Teach": its page, its state and the newest frame's probabilities, changes, and downloads."""

from __future__ import annotations

import asyncio
import json
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from edgekit.device.region import Region
from edgekit.device.sinks.web.access import read_change, refused
from edgekit.errors import EdgekitError, InputError
from edgekit.text import printable

if TYPE_CHECKING:
    from edgekit.device.teach.session import TeachSession

_FOLDER = Path(__file__).parent
TEACH_FILES = {
    "/teach": ((_FOLDER / "head.html", _FOLDER / "teach.html"), "text/html"),
    "/teach.js": ((_FOLDER / "teach.js",), "text/javascript"),
    "/page.css": ((_FOLDER / "page.css", _FOLDER / "teach.css"), "text/css"),
}
_MAX_BODY_BYTES = 4096
_POLL_S = 0.02


@dataclass(frozen=True)
class _Change:
    """The body of a request: `name` of a class, its `new` name, a `picture` of it, whether it is `held`; a region."""

    name: str = ""
    new: str = ""
    picture: str = ""
    held: bool = False
    region: tuple[float, float, float, float] | None = None


class TeachRoutes:
    """The handlers; what takes long or waits for the disk runs in other threads than the server's."""

    def __init__(self, session: TeachSession, is_closing: Callable[[], bool]) -> None:
        self._session = session
        self._is_closing = is_closing

    def routes(self) -> list[Route]:
        """Return the routes of the session; the static files `TEACH_FILES` are served by `app.Site`."""
        session = self._session
        return [
            Route("/api/teach/events", self._events),
            Route("/teach/pictures/{name}/{picture}", self._picture),
            Route("/teach/pictures.zip", self._archive),
            Route("/teach/model.onnx", self._model),
            self._change("record", lambda wanted: session.record(wanted.name, is_held=wanted.held)),
            self._change("add", lambda wanted: session.add_class(wanted.name)),
            self._change("rename", lambda wanted: session.rename_class(wanted.name, wanted.new)),
            self._change("remove", lambda wanted: session.remove_class(wanted.name)),
            self._change("remove-picture", lambda wanted: session.remove_picture(wanted.name, wanted.picture)),
            self._change("undo", lambda _: session.undo()),
            self._change("region", lambda wanted: session.set_region(_as_region(wanted))),
            self._change("use", lambda _: session.use()),
            self._change("back", lambda _: session.go_back()),
        ]

    def _change(self, name: str, apply: Callable[[_Change], None]) -> Route:
        """Return the route of a change, which `apply` makes in the session.

        The response has the new state of the session or, if the change is refused, the error.
        """

        async def respond(request: Request) -> Response:
            try:
                wanted = await read_change(request, _Change, _MAX_BODY_BYTES)
                if isinstance(wanted, Response):  # not from the page, or too long
                    return wanted
                await run_in_threadpool(apply, wanted)
            except EdgekitError as error:
                return refused(error)
            return JSONResponse(await run_in_threadpool(self._session.state))

        return Route(f"/api/teach/{name}", respond, methods=["POST"])

    async def _events(self, _: Request) -> Response:
        return StreamingResponse(self._updates(), media_type="text/event-stream")

    async def _updates(self) -> AsyncIterator[str]:
        """Yield the state of the session when it has changed, and the classification of each newest frame."""
        session, version, live = self._session, 0, None  # 0: the first state is always sent
        while not self._is_closing():
            # The session classifies frames for the page only for two seconds after this call.
            session.keep_watching()
            if session.version != version:
                state = await run_in_threadpool(session.state)
                version = state["version"]
                yield _event("state", state)
            if session.live is not live:
                live = session.live
                yield _event("live", live)
            await asyncio.sleep(_POLL_S)

    async def _picture(self, request: Request) -> Response:
        """Return a recorded picture of a class, by the two names in the path."""
        name, picture = request.path_params["name"], request.path_params["picture"]
        try:
            jpeg = await run_in_threadpool(self._session.picture, name, picture)
        except InputError as error:
            return PlainTextResponse(f"{printable(str(error))}\n", 404)
        return Response(jpeg, media_type="image/jpeg")

    async def _archive(self, _: Request) -> Response:
        pictures = await run_in_threadpool(self._session.pictures)
        return StreamingResponse(_zipped(pictures), media_type="application/zip", headers=_download("pictures.zip"))

    async def _model(self, _: Request) -> Response:
        try:
            name, content = await run_in_threadpool(self._session.model)
        except InputError as error:
            return PlainTextResponse(f"{printable(str(error))}\n", 404)
        return Response(content, media_type="application/octet-stream", headers=_download(name))


def _as_region(wanted: _Change) -> Region | None:
    """Return the region of a change, None for the whole picture; raise InputError if it exceeds the picture."""
    if wanted.region is None:
        return None
    region = Region(*wanted.region)
    # The page sends fractions; `Region` would take numbers above 1 for pixels. It checks that none is negative.
    if max(region.x + region.width, region.y + region.height) > 1:
        raise InputError("the region exceeds the picture: draw it again")
    return region


def _event(name: str, document: Any) -> str:
    return f"event: {name}\ndata: {json.dumps(document, allow_nan=False)}\n\n"


def _download(name: str) -> dict[str, str]:
    return {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}"}


class _Chunks:
    """A file that cannot be rewound, whose content is taken piece by piece."""

    def __init__(self) -> None:
        self._written = bytearray()

    def write(self, data: bytes) -> int:
        self._written += data
        return len(data)

    def flush(self) -> None:
        pass

    def take(self) -> bytes:
        taken = bytes(self._written)
        self._written.clear()
        return taken


def _zipped(pictures: Sequence[tuple[str, Path]]) -> Iterator[bytes]:
    """Yield an archive of the pictures, which are already compressed; those that were deleted are left out."""
    chunks = _Chunks()
    # `strict_timestamps`: zip has no dates before 1980, which a board with a wrong clock may give to a file.
    with zipfile.ZipFile(chunks, "w", strict_timestamps=False) as archive:  # type: ignore[call-overload]
        for name, path in pictures:
            with suppress(FileNotFoundError):
                archive.write(path, name)
            yield chunks.take()
    yield chunks.take()  # the directory of the archive, which closing it has written
