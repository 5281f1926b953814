"""The server of the web page: access control, responses, and viewers that do not delay the pipeline."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from types import SimpleNamespace
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from edgekit.device.annotate import FaceBlur
from edgekit.device.sinks.context import Account
from edgekit.device.sinks.monitor import Monitor
from edgekit.device.sinks.web import app
from edgekit.device.sinks.web.access import Access, bind
from edgekit.device.sinks.web.server import WebSink
from edgekit.errors import InputError, TemporaryError
from tests.device.conftest import repeated
from tests.device.http_client import request
from tests.runs import HOT
from tests.waiting import wait_until

TOKEN = "a-token-that-nobody-guesses"
PATIENCE_S = 30


class Web:
    def __init__(self, sink: WebSink, monitor: Monitor, feed) -> None:
        self.sink, self.monitor, self.feed = sink, monitor, feed
        self.address = urlsplit(sink.url)

    def write(self, *labels: str, noise: np.ndarray | None = None) -> None:
        frame, result = self.feed.next(*labels)
        if noise is not None:
            frame.image_bgr[:] = noise
        self.monitor.write(None, result)
        self.sink.write(frame, result)

    def get(self, path: str, method: str = "GET", body: str | None = None, **headers: str):
        return request(self.sink.url, method, path, body, **headers)

    @contextmanager
    def stream(self, path: str = "/stream.mjpg", **headers: str) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPConnection(self.address.hostname, self.address.port, timeout=PATIENCE_S)
        connection.request("GET", path, None, headers)
        try:
            yield connection.getresponse()
        finally:
            connection.sock and connection.sock.close()
            connection.close()

    def playing(self, noise: np.ndarray | None = None) -> AbstractContextManager[None]:
        """Write frames until the block ends, with the image `noise` if it is given."""
        return repeated(lambda: self.write("happy", "sad", noise=noise))


@pytest.fixture
def web(feed, notices) -> Iterator[Callable[..., Web]]:
    """Return a function that serves a page on a free port and returns its `Web`."""
    with ExitStack() as stack:

        def serve(token: str | None = None, account: Account | None = None, **options) -> Web:
            monitor = Monitor("demo", lambda: HOT, lambda: [account] if account else [])
            sink = WebSink("127.0.0.1:0", token, monitor, **options)
            return Web(stack.enter_context(sink), monitor, feed)

        yield serve
    assert notices == []


def _whole_line(stream: http.client.HTTPResponse) -> bytes:
    line = stream.readline()
    assert line, "the stream has ended"
    return line


def read_picture(stream: http.client.HTTPResponse) -> np.ndarray:
    length = 0
    while (line := _whole_line(stream).strip()) or not length:
        name, _, value = line.partition(b": ")
        length = int(value) if name == b"Content-Length" else length
    image = cv2.imdecode(np.frombuffer(stream.read(length), np.uint8), cv2.IMREAD_COLOR)
    assert stream.readline() == b"\r\n"
    return image


def test_page_and_its_parts_are_served_with_a_strict_policy(web):
    site = web()
    for path, kind in (("/", "text/html"), ("/page.js", "text/javascript"), ("/page.css", "text/css")):
        status, headers, body = site.get(path)
        assert (status, headers["content-type"].partition(";")[0]) == (200, kind)
        assert b"http://" not in body.replace(b"http://www.w3.org/", b"")
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
    assert site.get("/etc/passwd")[0] == 404
    assert site.get("/server.py")[0] == 404


def test_the_state_has_rate_faces_stages_and_the_boards_health(web):
    site = web()
    for _ in range(5):
        site.write("happy")
    document = json.loads(site.get("/api/state")[2])
    assert (document["frames"], document["labels"], document["source"]) == (5, {"happy": 5}, "demo")
    assert document["fps"] > 0
    assert document["latest"]["faces"][0]["label"] == "happy"
    assert document["stage_ms"]["detect"] == 20.0
    assert document["health"]["temperature_c"] == 71.5
    assert document["health"]["throttling"]["now"] == ["soft temperature limit"]


def test_metrics_are_what_prometheus_reads(web):
    account = Account("jsonl")
    account.produce(10)
    account.write(6)
    account.drop("disk full", 3)
    site = web(account=account)
    odd = 'a "quoted"\nlabel\\'
    site.write(odd)
    site.write("happy")
    status, headers, body = site.get("/metrics")
    assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    announced = [line.split()[2] for line in body.decode().splitlines() if line.startswith("# TYPE")]
    assert sorted(announced) == sorted(set(announced)), "each family once"
    families = {family.name: family for family in text_string_to_metric_families(body.decode())}
    samples = {sample.name: sample.value for family in families.values() for sample in family.samples}
    assert samples["edgekit_frames_total"] == 2
    assert {sample.labels["label"]: sample.value for sample in families["edgekit_faces"].samples} == {
        odd: 1,
        "happy": 1,
    }
    stages = {(s.name, s.labels["stage"]): s.value for s in families["edgekit_stage_seconds"].samples}
    assert stages["edgekit_stage_seconds_count", "detect"] == 2
    assert stages["edgekit_stage_seconds_sum", "detect"] == pytest.approx(0.04)
    assert (samples["edgekit_temperature_celsius"], samples["edgekit_throttled"]) == (71.5, 1)
    assert samples["edgekit_throttle_flags"] == 0x80008
    names = ("produced_total", "written_total", "dropped_total", "waiting")
    assert [samples[f"edgekit_output_{name}"] for name in names] == [10, 6, 3, 1]
    (dropped,) = families["edgekit_output_dropped"].samples
    assert dropped.labels == {"output": "jsonl", "reason": "disk full"}
    assert json.loads(site.get("/api/state")[2])["outputs"]["jsonl"]["dropped"] == {"disk full": 3}


def test_a_run_without_frames_is_stalled_unless_it_is_paused(web, monkeypatch):
    site = web()
    site.write()
    assert site.get("/healthz")[::2] == (200, b"ok\n")
    with monkeypatch.context() as patch:
        patch.setattr("edgekit.device.sinks.web.app.STALLED_AFTER_S", 0.0)
        assert site.get("/healthz")[::2] == (503, b"stalled\n")
    site.monitor.controls.pause()
    site.monitor.controls.commands.update(["pause", "ignored", "ignored"])
    monkeypatch.setattr("edgekit.device.sinks.web.app.STALLED_AFTER_S", 0.0)
    assert site.get("/healthz")[0] == 200
    state = json.loads(site.get("/api/state")[2])
    assert (state["paused"], state["stalled"], state["commands"]) == (True, False, {"pause": 1, "ignored": 2})
    lines = site.get("/metrics")[2].decode().splitlines()
    assert {"edgekit_paused 1", 'edgekit_commands_total{command="ignored"} 2'} <= set(lines)
    assert "edgekit_paused_seconds_total 0.0" in lines


def test_pictures_show_the_frames_with_boxes_and_move(web):
    site = web(max_fps=50)
    with site.playing(), site.stream() as stream:
        pictures = [read_picture(stream) for _ in range(5)]
    assert {picture.shape for picture in pictures} == {(240, 320, 3)}
    corners = [int(picture[230, 310].mean()) for picture in pictures]
    assert len(set(corners)) > 1, "each frame has a gray of its own"
    # The left side of the first box is drawn in the colour of its class, sky blue.
    blue, green, red = (int(value) for value in pictures[0][100, 20])
    assert blue > green > red + 30


def test_nothing_is_encoded_for_nobody_and_once_for_ten(web):
    site = web(max_fps=20)
    for _ in range(20):
        site.write("happy")
    assert site.sink.preview.encoded == 0
    with site.playing(), ExitStack() as stack:
        streams = [stack.enter_context(site.stream()) for _ in range(10)]
        pictures = 0
        for stream in streams * 5:
            read_picture(stream)
            pictures += 1
        encoded = site.sink.preview.encoded
        assert site.sink.preview.viewers == 10
        frames = site.feed.sequence
    assert pictures == 50
    # The last frame before the viewers and each later frame are encoded at most once, not once per viewer.
    assert 5 <= encoded <= frames - 19
    with site.playing():
        wait_until(lambda: site.sink.preview.viewers == 0)


def test_of_many_viewers_who_come_at_once_only_so_many_watch(web):
    site = web()
    with ExitStack() as stack, site.playing():
        place = (site.address.hostname, site.address.port)
        clients = [stack.enter_context(socket.create_connection(place, PATIENCE_S)) for _ in range(50)]
        for client in clients:
            client.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        wait_until(lambda: site.sink.preview.viewers)
        assert sum(client.recv(1) == b"H" for client in clients) == 50, "all are answered"
        assert site.sink.preview.viewers == 32


def test_blurred_faces_are_not_in_the_pictures(web):
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    site = web(blur=FaceBlur().update)
    site.write("happy", noise=noise)
    with site.stream() as stream:
        picture = read_picture(stream)
    assert picture[80:140, 30:80].std() < noise[80:140, 30:80].std() / 3
    assert picture[80:140, 200:300].std() > noise[80:140, 200:300].std() / 2


@pytest.mark.parametrize("path", ["/page.js", "/stream.mjpg", "/api/state", "/api/events", "/metrics", "/nothing"])
def test_with_a_token_only_those_who_know_it_get_in(web, path):
    site = web(token=TOKEN)
    wrong = [{}, {"Cookie": "edgekit=x"}, {"Cookie": f"{Access(TOKEN).cookie_name}=x"}]
    wrong += [{"Authorization": f"Bearer {TOKEN}x"}, {"Authorization": f"Basic {TOKEN}"}]
    for headers in wrong:
        status, answer, body = site.get(path, **headers)
        assert (status, answer["www-authenticate"]) == (401, "Bearer")
        assert TOKEN.encode() not in body
    assert site.get(f"{path}?token={TOKEN}")[0] == 401, "addresses end up in logs and histories"
    if path not in ("/stream.mjpg", "/api/events"):
        assert site.get(path, Authorization=f"Bearer {TOKEN}")[0] == (404 if path == "/nothing" else 200)


def test_login_gives_a_cookie_that_opens_the_page(web):
    site = web(token=TOKEN)
    assert site.get("/")[1]["location"] == "/login"
    assert site.get("/login")[0] == 200
    assert site.get("/healthz")[0] in (200, 503)
    status, headers, _ = site.get("/login", "POST", "token=wrong")
    assert (status, headers["location"]) == (303, "/login?wrong")
    assert "set-cookie" not in headers
    status, headers, _ = site.get("/login", "POST", f"token={TOKEN}")
    assert (status, headers["location"]) == (303, "/")
    cookie, *attributes = headers["set-cookie"].split("; ")
    assert {"HttpOnly", "SameSite=lax"} <= set(attributes)
    assert TOKEN not in cookie
    assert site.get("/", Cookie=cookie)[0] == 200
    assert site.get("/login", "POST", "token=" + "x" * 10_000)[0] == 413


def test_without_a_token_only_requests_that_name_this_machine_get_in(web):
    site = web()
    assert site.get("/", Host="localhost:8080")[0] == 200
    assert site.get("/", Host="[::1]:8080")[0] == 200
    for host in ("evil.example", "evil.example:80", "192.168.1.7", "127.0.0.1.evil.example"):
        assert site.get("/api/state", Host=host)[0] == 421


@pytest.mark.parametrize(
    ("address", "token"),
    [
        *((address, None) for address in ("0.0.0.0:0", "0:0", "[::]:0")),
        *((address, TOKEN) for address in ("http://localhost", "localhost:http", "localhost:70000", "a..b:80", "")),
        ("127.0.0.1:80:80", TOKEN),
    ],
)
def test_an_address_open_to_others_without_a_token_and_a_wrong_address_are_refused(address, token):
    with pytest.raises(InputError):
        bind(address, token)


def test_an_address_that_is_open_to_others_with_a_token_is_taken_and_a_short_token_is_refused():
    bind("0.0.0.0:0", TOKEN).close()
    with pytest.raises(InputError):
        Access("hunter2")


def test_after_an_address_that_may_exist_later_a_service_is_started_again():
    # The last one is an address of documentation (RFC 5737), as that of a board before its router has answered.
    with bind("0", None) as taken:
        for address in (str(taken.getsockname()[1]), "no-such-host.invalid:80", "192.0.2.1:8080"):
            with pytest.raises(TemporaryError):
                bind(address, TOKEN)


def test_the_end_of_the_run_ends_all_streams(feed):
    monitor = Monitor("demo", lambda: None)
    sink = WebSink("0", None, monitor, max_fps=100)
    with sink:
        site = Web(sink, monitor, feed)
        with ExitStack() as stack:
            asleep = stack.enter_context(socket.create_connection((site.address.hostname, site.address.port)))
            asleep.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            asleep.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
            # Large images fill all buffers of a viewer that reads nothing.
            with site.playing(np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)):
                wait_until(lambda: sink.preview.encoded > 3)
            streams = [stack.enter_context(site.stream(path)) for path in ("/stream.mjpg", "/api/events")]
            read_picture(streams[0])
            sink.__exit__(None, None, None)
            for stream in streams:
                with suppress(http.client.IncompleteRead):
                    stream.read()  # returns at its end
    # The end waits less than 1 s for the thread; on a busy machine the thread can end later.
    wait_until(lambda: is_refused(site.address.port))


def is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return True
    return False


PICTURE = {"Content-Type": "image/jpeg"}


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        (PICTURE, b"picture", 200),
        ({"Content-Type": "Image/PNG; x=y"}, b"picture", 200),
        ({}, b"picture", 415),
        ({"Content-Type": "text/plain"}, b"picture", 415),
        (PICTURE, b"bad", 400),
        (PICTURE, b"x" * 10_000_001, 413),
    ],
)
def test_a_posted_picture_gives_its_faces(web, feed, headers, body, status):
    def recognise(data: bytes):
        if data != b"picture":
            raise InputError("not a picture")
        return feed.next("happy")[1]

    answer = web(recognise=recognise).get("/classify", "POST", body, **headers)
    assert answer[0] == status
    if status == 200:
        assert json.loads(answer[2])["faces"][0]["label"] == "happy"
    assert (answer[2] == b"not a picture\n") is (status == 400)


def test_pictures_need_the_token_and_a_run_that_takes_them(web, feed):
    site = web(token=TOKEN, recognise=lambda _: feed.next("happy")[1])
    assert site.get("/classify", "POST", b"p", **PICTURE)[0] == 401
    assert site.get("/classify", "POST", b"p", **PICTURE, Authorization=f"Bearer {TOKEN}")[0] == 200
    assert web().get("/classify", "POST", b"p", **PICTURE)[0] == 404


def test_more_pictures_than_a_second_may_have_are_refused(web, feed, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(app, "time", SimpleNamespace(monotonic=lambda: now[0]))
    site = web(recognise=lambda _: feed.next("happy")[1])

    def post() -> int:
        return site.get("/classify", "POST", b"p", **PICTURE)[0]

    assert [post() for _ in range(6)] == [200] * 5 + [429]
    now[0] += 1
    assert post() == 200
