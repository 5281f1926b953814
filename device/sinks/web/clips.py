"""Clips of events on the web page of a run: a list, their pictures and the videos."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from edgekit.device.sinks.clip_writer import CLIP_NAME, POSTER_SUFFIX

# The page shows the newest ones.
_MOST_SHOWN = 48


class ClipRoutes:
    """`/api/clips` has the names of the newest clips, `/clips/NAME` a clip or its picture."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [Route("/api/clips", self._list), Route("/clips/{name}", self._file)]

    def _list(self, _: Request) -> Response:
        # The names begin with the time.
        found = sorted(
            (path.name for path in self._folder.glob("*.mp4") if CLIP_NAME.fullmatch(path.name)), reverse=True
        )
        return JSONResponse([_entry(name) for name in found[:_MOST_SHOWN]])

    def _file(self, request: Request) -> Response:
        """Return a clip, or the picture beside it."""
        name = Path(request.path_params["name"]).name  # without folders
        path = self._folder / name
        # Other files of the folder are not served.
        is_named_so = CLIP_NAME.fullmatch(path.with_suffix(".mp4").name) and path.suffix in (".mp4", POSTER_SUFFIX)
        if not is_named_so or not path.is_file():
            return PlainTextResponse("there is no such clip\n", 404)
        return FileResponse(path)  # answers requests for a part of the file, as players send them


def _entry(name: str) -> dict[str, str]:
    """Return name, picture, UTC time, label and zone of a clip; the label has the characters of the file's name.

    The zone is empty without zones.
    """
    time, rest = name.split("-", 1)
    label_and_zone = rest.rsplit("-", 2)[0]  # without the id, RUN-NUMBER
    label, _, zone = label_and_zone.removeprefix("unsynchronised-").partition("@")
    # From 20260102T030405.678Z to 2026-01-02T03:04:05.678Z.
    stamp = f"{time[:4]}-{time[4:6]}-{time[6:11]}:{time[11:13]}:{time[13:]}"
    return {
        "clip": name,
        "picture": f"{Path(name).stem}{POSTER_SUFFIX}",
        "time": stamp,
        "label": label,
        "zone": zone,
    }
