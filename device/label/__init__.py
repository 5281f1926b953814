"""HTTP application of the page for labelling. Only this module and the web page of a run import Starlette."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from edgekit.device.label.store import LabelStore
from edgekit.device.sinks.web.access import Access, is_from_page, read_change, refused
from edgekit.device.sinks.web.app import FOLDER, Files, Guard, Site
from edgekit.device.sinks.web.server import WebServer
from edgekit.errors import EdgekitError, InputError

_HERE = Path(__file__).parent
_FILES: Files = {
    "/": ((FOLDER / "head.html", _HERE / "label.html"), "text/html"),
    "/label.js": ((_HERE / "label.js",), "text/javascript"),
    "/page.css": ((FOLDER / "page.css", _HERE / "label.css"), "text/css"),
}
_MAX_BODY_BYTES = 1 << 20


@dataclass(frozen=True)
class _Change:
    """The body of a request: `files` and `label` of a decision, `id` of the decision to undo, or `name` of a class."""

    files: list[str] = field(default_factory=list)
    label: str | None = None
    id: int = 0
    name: str = ""


def label_page(store: LabelStore, address: str, token: str | None) -> WebServer:
    """Return the server of the page for labelling; it serves inside its `with` block.

    `WebServer` describes arguments and errors.

    with label_page(LabelStore(Path("collected")), "127.0.0.1:8080", token=None) as page:
        print(page.url)
        input("press Enter to end")
    """
    return WebServer(address, token, make_app(Access(token), store))


def make_app(access: Access, store: LabelStore) -> ASGIApp:
    """Return the application of the page for labelling.

    All requests but `/api/teach` run in the server's thread, one after the other, so the store needs no lock.
    """
    label = _Label(store)
    routes = [
        *Site(access, _FILES).routes(),
        Route("/api/state", label.state),
        Route("/crop/{name}", label.crop),
        Route("/api/decide", label.decide, methods=["POST"]),
        Route("/api/undo", label.undo, methods=["POST"]),
        Route("/api/classes", label.add_class, methods=["POST"]),
        Route("/api/teach", label.teach, methods=["POST"]),
    ]
    return Guard(Starlette(routes=routes), access)


class _Label:
    """Answers the requests of the page."""

    def __init__(self, store: LabelStore) -> None:
        self._store = store
        self._teaching = asyncio.Lock()

    async def state(self, request: Request) -> Response:
        """Respond with the whole state, or with status 204 if the page already has the current version."""
        self._store.refresh()
        if request.query_params.get("version") == str(self._store.version):
            return Response(status_code=204)
        return JSONResponse(self._store.state())

    async def crop(self, request: Request) -> Response:
        """Respond with the PNG file of a crop, or with status 404."""
        try:
            return Response(self._store.read_crop(request.path_params["name"]), media_type="image/png")
        except InputError as error:
            return PlainTextResponse(f"{error}\n", 404)

    async def decide(self, request: Request) -> Response:
        """Apply a decision. The response has the new counts, and the crops whose files were already deleted."""
        return await self._change(request, self._decide)

    def _decide(self, change: _Change) -> dict[str, Any]:
        decision = self._store.decide(change.files, change.label)
        return {**self._store.summary(), "gone": decision.missing}

    async def undo(self, request: Request) -> Response:
        """Undo the latest decision. The response has the whole state."""
        return await self._change(request, self._undo)

    def _undo(self, change: _Change) -> dict[str, Any]:
        decision = self._store.undo(change.id)
        return {**self._store.state(), "restored": decision.files, "gone": decision.missing}

    async def add_class(self, request: Request) -> Response:
        """Add a class. The response has the whole state."""
        return await self._change(request, self._add_class)

    def _add_class(self, change: _Change) -> dict[str, Any]:
        self._store.add_class(change.name)
        return self._store.state()

    async def teach(self, request: Request) -> Response:
        """Teach a model from the labelled crops; respond with its accuracy and the next command.

        This takes seconds, so it runs in another thread, and only once at a time.
        """
        # For requests with a body, `read_change` makes this check.
        if not is_from_page(request):
            return PlainTextResponse("only the page itself may send this\n", 403)
        if self._teaching.locked():
            return JSONResponse({"error": "a model is being taught already"}, 409)
        async with self._teaching:
            try:
                return JSONResponse(await run_in_threadpool(self._store.teach))
            except EdgekitError as error:
                return refused(error)

    async def _change(self, request: Request, apply: Callable[[_Change], dict[str, Any]]) -> Response:
        """Apply the change in the body of a request, and respond with the document that `apply` returns.

        The response to an error has the whole state, with which the page continues.
        """
        try:
            change = await read_change(request, _Change, _MAX_BODY_BYTES)
            if isinstance(change, Response):  # the request is refused
                return change
            return JSONResponse(apply(change))
        except EdgekitError as error:
            return refused(error, **self._store.state())
