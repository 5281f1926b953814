"""The routes of the tab "Teach", with the shipped model for the features: record, fit, use, go back, download."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

from edgekit.contract import DistanceSpec
from edgekit.device.detections import Detections, FrameResult
from edgekit.device.engines.engine import contract_in
from edgekit.device.frame import Frame
from edgekit.device.imaging import decode_image
from edgekit.device.region import Region
from edgekit.device.sinks.monitor import Monitor
from edgekit.device.sinks.teach import TeachSink, TeachTabOptions
from edgekit.device.sinks.web.server import WebSink
from edgekit.device.teach.embed import Embedder
from edgekit.device.teach.recordings import Recordings
from edgekit.device.teach.session import SessionParts, TeachSession
from edgekit.device.teach.taught_file import TaughtFile
from tests.device.conftest import repeated
from tests.device.http_client import request
from tests.runs import run_of
from tests.things import SIZE_WH, thing
from tests.waiting import wait_until

TOKEN = "a-token-that-nobody-guesses"
FACE_XYXY = (100.0, 80.0, 200.0, 180.0)


class Tab:
    """A run that shows `kind`, its web page, and a client; `used` are the models that the run was told to use."""

    def __init__(self, session: TeachSession, web: WebSink, used: list[Path], folder: Path) -> None:
        self.session, self.used, self.folder = session, used, folder
        self.kind = "mug"
        self.faces: list[tuple[float, ...]] = []
        self.url = web.url
        self._sequence = 0

    def frame(self) -> tuple[Frame, FrameResult]:
        self._sequence += 1
        now_s = time.monotonic()
        image = thing(self.kind, self._sequence / 10)
        faces = Detections(np.array(self.faces, np.float32).reshape(-1, 4), np.ones(len(self.faces), np.float32))
        return (
            Frame(self._sequence, now_s, time.time(), image),
            FrameResult(self._sequence, now_s, time.time(), SIZE_WH, faces, {}, 1.0),
        )

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
        status, _, content = request(self.url, method, path, None if body is None else json.dumps(body), **headers)
        return status, content

    def post(self, change: str, **body: Any) -> dict[str, Any]:
        """Send a change like the page, and return the response: the new state."""
        status, answer = self.request("POST", f"/api/teach/{change}", body, Content_Type="application/json")
        assert status in (200, 400, 507)
        return json.loads(answer)

    def record(self, label: str, kind: str, count: int) -> None:
        """Hold the button of a class until `count` more pictures are recorded, and wait for the fit."""
        self.kind = kind
        wanted = len(self.pictures(label)) + count

        def is_recorded() -> bool:
            self.post("record", name=label, held=True)
            return len(self.pictures(label)) >= wanted

        wait_until(is_recorded, poll_s=0.1)
        self.post("record", name=label, held=False)
        wait_until(lambda: not self.session.state()["is_fitting"])

    def teach(self, count: int) -> None:
        """Record pictures of a mug and of a bolt."""
        for name in ("mug", "bolt"):
            self.post("add", name=name)
            self.record(name, name, count)

    def pictures(self, label: str) -> list[str]:
        return next(each["pictures"] for each in self.session.state()["classes"] if each["name"] == label)

    def label(self) -> str | None:
        """Return the label of a frame that comes after this call."""
        after = self._sequence
        self.session.keep_watching()
        wait_until(lambda: self.session.live is not None and self.session.live["sequence"] > after)
        return (self.session.live or {}).get("label")


@pytest.fixture
def tab(tmp_path: Path, tiny_image_model: Path) -> Iterator[Callable[..., Tab]]:
    with ExitStack() as stack:

        def serve(token: str | None = None, most_bytes: int = 10**8, **parts: Any) -> Tab:
            used: list[Path] = []
            file = TaughtFile(tmp_path / "my.onnx", tiny_image_model)
            subject = parts.pop("subject", "image")
            session = TeachSession(
                SessionParts(
                    file=file,
                    recordings=Recordings(file.pictures, most_bytes),
                    subject=subject,
                    make_embedder=lambda: Embedder(96, subject, 1),
                    use_model=used.append,
                    **parts,
                )
            )
            sink = TeachSink(session)
            web = WebSink("127.0.0.1:0", token, Monitor("demo", lambda: None), teaching=session)
            made = Tab(session, web, used, tmp_path)
            stack.enter_context(web)
            stack.enter_context(sink)
            stack.enter_context(repeated(lambda: sink.write(*made.frame())))
            return made

        yield serve


def test_two_things_are_recorded_fitted_and_used(tab: Callable[..., Tab], tiny_image_model: Path) -> None:
    page = tab()
    assert "error" in page.post("use"), "there is no fit yet"
    page.teach(6)
    wait_until(lambda: page.label() == "bolt")
    page.kind = "mug"
    wait_until(lambda: page.label() == "mug")

    assert page.post("region", region=None)["is_fit_used"] is False
    state = page.post("use")
    assert state["is_fit_used"]
    assert (state["is_used"], page.used) == (True, [page.folder / "my.onnx"])
    assert set(contract_in(page.used[0]).labels) == {"mug", "bolt"}
    assert page.request("GET", "/teach/model.onnx")[1] == page.used[0].read_bytes()
    state = page.post("back")
    assert (state["is_used"], state["is_fit_used"]) == (False, False)
    assert page.used[-1] == tiny_image_model
    state = page.post("back")
    assert (state["is_used"], state["is_fit_used"]) == (True, True)
    assert page.post("region", region=[0, 0, 0.5, 0.5])["is_fit_used"] is False

    archive = zipfile.ZipFile(io.BytesIO(page.request("GET", "/teach/pictures.zip")[1]))
    assert archive.testzip() is None
    assert sorted(archive.namelist()) == sorted(
        f"{label}/{name}" for label in ("mug", "bolt") for name in page.pictures(label)
    )
    name = page.pictures("mug")[0]
    status, jpeg = page.request("GET", f"/teach/pictures/mug/{quote(name)}")
    assert (status, decode_image(jpeg, name).shape) == (200, (*SIZE_WH[::-1], 3))


def test_a_click_records_one_picture_and_a_lost_browser_stops_recording(tab: Callable[..., Tab]) -> None:
    page = tab()
    page.post("add", name="mug")
    page.post("record", name="mug", held=True)
    page.post("record", name="mug", held=False)
    wait_until(lambda: len(page.pictures("mug")) == 1)
    page.post("record", name="mug", held=True)
    wait_until(lambda: page.session.state()["recording"] == "mug")
    wait_until(lambda: page.session.state()["recording"] is None)
    assert len(page.pictures("mug")) >= 2


def test_changes_fit_again_and_undo_restores(tab: Callable[..., Tab]) -> None:
    page = tab()
    page.teach(4)
    page.post("rename", name="bolt", new="screw")
    wait_until(lambda: page.label() == "screw")
    page.post("remove", name="screw")
    wait_until(lambda: page.session.state()["fit"] is None)
    page.post("undo")
    wait_until(lambda: page.label() == "screw")
    count = len(page.pictures("screw"))
    page.post("remove-picture", name="screw", picture=page.pictures("screw")[0])
    assert len(page.pictures("screw")) == count - 1


def test_the_region_is_recorded_and_written_into_the_model(tab: Callable[..., Tab]) -> None:
    page = tab()
    assert page.post("region", region=[0.25, 0.25, 0.5, 0.5])["region"]["x"] == 0.25
    for region in ([0.5, 0.5, 0.6, 0.6], [0, 0, 0, 1], [-1, 0, 1, 1], "all", [0, 0, 1]):
        assert "error" in page.post("region", region=region)
    page.teach(3)
    jpeg = page.session.picture("mug", page.pictures("mug")[0])
    assert decode_image(jpeg, "mug").shape[:2] == (SIZE_WH[1] // 2, SIZE_WH[0] // 2)
    page.post("use")
    assert contract_in(page.used[0]).region == (0.25, 0.25, 0.75, 0.75)
    fixed = tab(roi=Region(0, 0, 0.5, 0.5))
    assert "error" in fixed.post("region", region=None)


def test_faces_are_taught_on_the_largest_one(tab: Callable[..., Tab]) -> None:
    page = tab(subject="face")
    assert page.label() is None, "no face"
    page.faces = [(10.0, 10.0, 40.0, 40.0), FACE_XYXY]
    for name in ("open", "closed"):
        page.post("add", name=name)
        page.record(name, "mug" if name == "open" else "bolt", 3)
    jpeg = page.session.picture("open", page.pictures("open")[0])
    assert decode_image(jpeg, "open").shape[:2] == (108, 108), "the square of the face with the margin of the models"
    assert page.label() in ("open", "closed", "uncertain")
    page.post("use")
    assert contract_in(page.used[0]).subject == "face"


@pytest.mark.parametrize(
    ("is_for_any", "is_taught", "subject"), [(False, False, "image"), (False, True, "face"), (True, False, "face")]
)
def test_a_run_with_a_taught_model_of_faces_teaches_faces_and_one_with_another_model_whole_images(
    tmp_path: Path, tiny_model: Path, is_for_any: bool, is_taught: bool, subject: str
) -> None:
    run = run_of(print)
    taught = TaughtFile(tmp_path / "my.onnx", tiny_model, is_for_any=is_for_any)
    distance = DistanceSpec("distance", 0.5) if is_taught else None
    run = replace(run, contract=replace(run.contract, distance=distance), taught=taught)
    TeachTabOptions(teach=taught.path).open(run)
    assert run.links.teaching.state()["subject"] == subject


def test_a_full_folder_stops_the_recording_and_says_so(tab: Callable[..., Tab]) -> None:
    page = tab(most_bytes=30_000)
    page.post("add", name="mug")
    wait_until(lambda: page.post("record", name="mug", held=True)["message"] or page.session.state()["message"])
    assert page.session.state()["size_bytes"] <= 30_000


CHANGES = {
    "add": {"name": "nut"},
    "rename": {"name": "mug", "new": "cup"},
    "remove": {"name": "mug"},
    "record": {"name": "mug", "held": True},
    "undo": {},
    "region": {"region": [0, 0, 0.5, 0.5]},
    "use": {},
    "back": {},
}


def test_no_request_without_token_or_from_another_origin_changes_anything(tab: Callable[..., Tab]) -> None:
    page = tab(TOKEN)
    page.session.add_class("mug")
    wait_until(lambda: not page.session.state()["is_fitting"])
    version = page.session.version
    token, json_type = f"Bearer {TOKEN}", "application/json"
    foreign = {"Content_Type": json_type, "Authorization": token, "Origin": "http://evil.example"}
    for name, body in CHANGES.items():
        path = f"/api/teach/{name}"
        assert page.request("POST", path, body, Content_Type=json_type)[0] == 401
        assert page.request("POST", path, body, Content_Type=json_type, Authorization="Bearer wrong")[0] == 401
        assert page.request("POST", path, body, Content_Type="text/plain", Authorization=token)[0] == 403
        assert page.request("POST", path, body, **foreign)[0] == 403
        assert page.request("GET", path, Authorization=token)[0] == 405
    assert page.session.version == version
    for read in ("/teach/pictures.zip", "/teach/model.onnx", "/api/teach/events", "/teach/pictures/mug/a.jpg"):
        assert page.request("GET", read)[0] == 401
    assert page.request("GET", "/teach")[0] == 303


@pytest.mark.parametrize(
    "path", ["/teach/pictures/mug/..%2F..%2Fmy.json", "/teach/pictures/../my.json", "/teach/model.onnx"]
)
def test_nothing_but_recorded_pictures_and_the_taught_model_is_served(path: str, tab: Callable[..., Tab]) -> None:
    page = tab()
    (page.folder / "my.json").write_text("{}")
    page.session.add_class("mug")
    assert page.request("GET", f"/teach/{path}")[0] == 404
