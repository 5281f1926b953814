"""`edgekit run` on the emulated board: picamera2, a broker on the host, the web page, health, SIGTERM.

All waits are for events, so that the speed of the emulation does not matter.
"""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgekit.assets
from tests.conftest import Broker, Listener
from tests.device.teach.shapes import picture, write_pictures
from tests.ports import free_port
from tests.waiting import wait_until

from .board import VirtualPi
from .camera import FRAMES
from .conftest import prepared
from .system import PYTHONS, USER, compile_python

PATIENCE_S = 400
TOPIC = "edgekit/board"
COOL_C, HOT_C = 48.3, 83.0
# Under-voltage and throttled, now and since the start (Raspberry Pi documentation, "get_throttled").
FLAGS = "0x50005"
FRAME_WH = (640, 480)
MOST_LEVELS_OFF = 10


def wait_for(holds: Callable[[], object], run: Run | None = None) -> None:
    """Wait for a condition; fail if the time limit has passed or the run has ended."""
    wait_until(
        holds,
        alive=lambda: run is None or run.process.poll() is None,
        failure=lambda: run.output() if run else "waited in vain",
        patience_s=PATIENCE_S,
        poll_s=0.2,
    )


@dataclass
class Run:
    """`edgekit run` on the board, started over ssh."""

    pi: VirtualPi
    process: subprocess.Popen[bytes]
    web_port: int
    folder: Path

    def output(self) -> str:
        return (self.folder / "stderr").read_text()[-2000:]

    def records(self) -> list[dict[str, Any]]:
        """Return the complete lines of the results file."""
        path = self.pi.path(f"home/{USER}/results.jsonl")
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


@pytest.fixture
def listener(broker: Broker) -> Iterator[Listener]:
    """A subscriber of a running broker on the host."""
    broker.start()
    with ExitStack() as stack:
        yield broker.listen(stack)


@pytest.fixture(scope="module")
def camera_pi(suite: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualPi]:
    """A board with this checkout of edgekit, whose camera plays images of a face."""
    pi = prepared(VirtualPi(tmp_path_factory.mktemp("camera-pi"), suite, camera=True))
    show(pi.path(FRAMES))
    install_edgekit(pi, suite)
    with pi:
        yield pi


def pictures() -> list[np.ndarray]:
    """Return the camera's images, BGR: the bundled portrait, moving slightly."""
    import cv2

    portrait = cv2.imread(str(Path(edgekit.assets.__file__).with_name("astronaut.png")))
    width, height = FRAME_WH
    large = cv2.resize(portrait, (width + 16, width + 16))
    return [large[:height, shift_px : shift_px + width] for shift_px in (0, 8, 16, 8)]


def show(folder: Path) -> None:
    import cv2

    folder.mkdir(parents=True)
    for number, image in enumerate(pictures()):
        cv2.imwrite(str(folder / f"{number}.jpg"), image)


def install_edgekit(pi: VirtualPi, suite: str) -> None:
    from edgekit.remote.payload import own_code

    version = PYTHONS[suite]
    packages = f"usr/local/lib/python{version}/dist-packages"
    with zipfile.ZipFile(BytesIO(own_code())) as wheel:
        wheel.extractall(pi.path(packages))
    compile_python(pi.path(""), version, [pi.path(packages)])


@pytest.fixture
def run(
    camera_pi: VirtualPi, broker: Broker, listener: Listener, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Run]:
    """A run with web page and MQTT; a parameter adds settings."""
    del listener  # its broker runs
    web_port = free_port()
    settings = {
        "camera-size": "{}x{}".format(*FRAME_WH),
        "detector": "haar",
        "jsonl": "results.jsonl",
        "web": f"127.0.0.1:{web_port}",
        "mqtt": f"mqtt://127.0.0.1:{broker.port}",
        "mqtt-topic": TOPIC,
        "event-hold": "0s",
        **getattr(request, "param", {}),
    }
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in settings.items()]
    camera_pi.path(f"home/{USER}/edgekit.toml").write_text("".join(lines))
    words = "echo $$ >pid; exec python3 -m edgekit.cli run --camera picamera2 --config edgekit.toml --json"
    with (tmp_path / "stdout").open("wb") as stdout, (tmp_path / "stderr").open("wb") as stderr:
        process = subprocess.Popen(camera_pi.ssh(words), stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)
    yield Run(camera_pi, process, web_port, tmp_path)
    process.kill()
    process.wait()
    # The next test needs a free camera and a cool board, also after a failure.
    subprocess.run(camera_pi.ssh("kill -KILL $(cat pid) 2>/dev/null; :"), check=True, timeout=PATIENCE_S)
    set_health(camera_pi, COOL_C, "0x0")


@pytest.fixture
def get(run: Run) -> Iterator[Callable[[str], http.client.HTTPResponse]]:
    """Requests pages of the board through a port that ssh forwards."""
    port = free_port()
    tunnel = ["-N", "-o", "ExitOnForwardFailure=yes", "-L", f"127.0.0.1:{port}:127.0.0.1:{run.web_port}"]
    command = run.pi.ssh(*tunnel, "true")[:-1]
    connections = []

    def request_page(path: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        connections.append(connection)
        connection.request("GET", path)
        return connection.getresponse()

    def listens() -> bool:
        with socket.socket() as line:
            return line.connect_ex(("127.0.0.1", port)) == 0

    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_for(listens, run)
        yield request_page
        for connection in connections:
            connection.close()
        process.kill()


def set_health(pi: VirtualPi, temperature_c: float, throttled: str) -> None:
    values = {"class/thermal/thermal_zone0/temp": f"{temperature_c * 1000:.0f}", "throttled": throttled}
    for name, value in values.items():
        path = pi.sys / name
        path.with_suffix(".new").write_text(f"{value}\n")
        path.with_suffix(".new").replace(path)  # so that no reader sees an empty file


def is_hot(health: dict[str, Any] | None) -> bool:
    return bool(health) and health["temperature_c"] == HOT_C and "throttled" in (health["throttling"] or {})["now"]


def test_a_run_finds_faces_tells_them_lowers_its_load_when_hot_and_stops_when_told(
    run: Run, listener: Listener, get: Callable[[str], http.client.HTTPResponse]
) -> None:
    # The images from picamera2 contain the face.
    wait_for(lambda: any(record["faces"] for record in run.records()), run)
    (face,) = next(record for record in run.records() if record["faces"])["faces"]
    assert face["label"]
    left, top, right, bottom = face["xyxy"]
    assert 220 < (left + right) / 2 < 340
    assert 90 < (top + bottom) / 2 < 210
    assert all(record["frame_wh"] == list(FRAME_WH) for record in run.records())
    assert not any(is_hot(record.get("health")) for record in run.records())

    # The web page shows the state and the images.
    state = json.loads(get("/api/state").read())
    assert state["source"] == "camera 'picamera2'"
    assert get("/").read().startswith(b"<!doctype html>")
    stream = get("/stream.mjpg")
    while not (line := stream.readline()).startswith(b"Content-Length:"):
        assert line
    stream.readline()
    assert difference(decoded(stream.read(int(line.split()[1])))) < MOST_LEVELS_OFF
    assert b"edgekit_" in get("/metrics").read()

    # The broker receives events and health.
    wait_for(lambda: listener.on(f"{TOPIC}/event") and listener.on(f"{TOPIC}/health"), run)
    assert listener.on(f"{TOPIC}/availability")[-1] == b"online"
    assert json.loads(listener.on(f"{TOPIC}/event")[0])["label"] == face["label"]

    # Results, messages and page contain heat and throttling, and detections become rarer.
    set_health(run.pi, HOT_C, FLAGS)
    wait_for(lambda: any(is_hot(record.get("health")) for record in run.records()), run)
    wait_for(lambda: any(is_hot(json.loads(payload)) for payload in listener.on(f"{TOPIC}/health")), run)
    assert is_hot(json.loads(get("/api/state").read())["health"])
    wait_for(lambda: "detection in 1 of" in run.output(), run)
    wait_for(lambda: any("detect" not in record["stage_ms"] for record in run.records()), run)

    # After SIGTERM, the run finishes and publishes "offline".
    subprocess.run(run.pi.ssh("kill -TERM $(cat pid)"), check=True, timeout=PATIENCE_S)
    assert run.process.wait(PATIENCE_S) == 0, run.output()
    summary = json.loads((run.folder / "stdout").read_text())
    assert summary["ended"] == "stopped"
    assert summary["frames"] == len(run.records())
    assert summary["health"]["max_temperature_c"] == HOT_C
    assert summary["health"]["max_load_level"] >= 1
    wait_for(lambda: listener.on(f"{TOPIC}/availability")[-1] == b"offline")
    sequences = [record["sequence"] for record in run.records()]
    assert sequences == sorted(set(sequences))


EVERYTHING = {
    "max-frames": 60,
    "jsonl": "all.jsonl",
    "csv": "all.csv",
    "record": "all.mp4",
    "collect": "crops",
    "collect-when": "every:1s",
    "event-snapshots": "events",
    "send-snapshots": True,
}


@pytest.mark.parametrize("run", [EVERYTHING], indirect=True)
def test_with_everything_on_and_two_viewers_the_accounts_equal_what_is_stored_and_received(
    run: Run, listener: Listener, get: Callable[[str], http.client.HTTPResponse]
) -> None:
    wait_for(lambda: listener.on(f"{TOPIC}/availability"), run)
    viewers = [Viewer(get("/stream.mjpg")) for _ in range(2)]
    assert run.process.wait(PATIENCE_S) == 0, run.output()
    assert "error" not in run.output()
    summary = json.loads((run.folder / "stdout").read_text())
    assert (summary["ended"], summary["frames"]) == ("finished", EVERYTHING["max-frames"])

    home = run.pi.path(f"home/{USER}")
    records = [json.loads(line) for line in (home / "all.jsonl").read_text().splitlines()]
    faces = [face for record in records for face in record["faces"]]
    events = {json.loads(payload)["event_id"] for payload in listener.on(f"{TOPIC}/event")}
    stored = {
        "jsonl": len(records),
        "csv": len((home / "all.csv").read_text().splitlines()) - 1,
        "collect": len((home / "crops/crops.jsonl").read_text().splitlines()),
        "event snapshots": len(list((home / "events").glob("*.jpg"))),
        "mqtt": len(events),
    }
    assert {name: summary["outputs"][name]["written"] for name in stored} == stored
    assert not any(account["dropped"] or account["waiting"] for account in summary["outputs"].values())
    assert stored["jsonl"] == EVERYTHING["max-frames"]
    assert stored["csv"] == len(faces)
    assert stored["event snapshots"] == stored["mqtt"] >= 1
    assert len(first_pictures(home / "all.mp4", 1000)) >= EVERYTHING["max-frames"] / 2
    wait_for(lambda: all(viewer.ended for viewer in viewers))
    assert all(viewer.images >= 5 for viewer in viewers)


class Viewer:
    """Reads a stream of JPEG images in a thread until it ends, and counts them."""

    def __init__(self, stream: http.client.HTTPResponse) -> None:
        self.images = 0
        self._thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        return not self._thread.is_alive()

    def _read(self, stream: http.client.HTTPResponse) -> None:
        with suppress(OSError, http.client.HTTPException):  # the run ends
            while line := stream.readline():
                self.images += line.startswith(b"Content-Length:")


def test_a_board_teaches_itself_from_pictures_and_runs_the_file(camera_pi: VirtualPi) -> None:
    import cv2

    write_pictures(camera_pi.path(f"home/{USER}/things"))
    for number, image in enumerate((picture("square", 50), picture("disc", 50))):
        cv2.imwrite(str(camera_pi.path(f"home/{USER}/{number}.png")), image)
    teach = "python3 -m edgekit.cli teach things -o my.onnx --image-size 96 --json"
    run = "python3 -m edgekit.cli run --source '?.png' --model my.onnx --jsonl taught.jsonl"
    done = subprocess.run(
        camera_pi.ssh(f"{teach} && {run}"), capture_output=True, text=True, timeout=PATIENCE_S, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = camera_pi.path(f"home/{USER}/taught.jsonl").read_text().splitlines()
    assert [json.loads(line)["results"][0]["label"] for line in lines] == ["square", "disc"]


def test_a_camera_is_recorded_by_picamera2_where_no_encoder_is_by_the_processor(camera_pi: VirtualPi) -> None:
    words = "python3 -m edgekit.cli run --camera picamera2 --detector haar --record door.mp4 --max-frames 30"
    done = subprocess.run(
        camera_pi.ssh(words), capture_output=True, text=True, timeout=PATIENCE_S, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "no hardware encoder" in done.stderr
    seen = first_pictures(camera_pi.path(f"home/{USER}/door.mp4"), 5)
    assert len(seen) == 5
    assert max(map(difference, seen)) < MOST_LEVELS_OFF


def first_pictures(video: Path, count: int) -> list[np.ndarray]:
    import cv2

    capture = cv2.VideoCapture(str(video))
    return [picture for ok, picture in (capture.read() for _ in range(count)) if ok]


# A stopped camera delivers no image, like a camera whose cable was pulled out.
SILENCE = """
from picamera2 import Picamera2
from edgekit.device.sources.picamera import _PiCamera
from edgekit.device.sources.settings import CameraSettings

def opened():
    return _PiCamera(Picamera2, "camera", 0, CameraSettings(size_wh=(640, 480)), print)

device = opened()
assert device.read() is not None
device._camera.stop()
assert device.read() is None
device.close()
# As a run, which opens a lost camera until it delivers images: libcamera's virtual camera may need a second attempt.
for _ in range(3):
    device = opened()
    image = device.read()
    device.close()
    if image is not None:
        break
assert image is not None
print("opened again")
"""


def test_a_camera_that_goes_silent_can_be_closed_and_opened_again(camera_pi: VirtualPi) -> None:
    camera_pi.path(f"home/{USER}/silence.py").write_text(SILENCE)
    words = camera_pi.ssh("python3 silence.py")
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, stdin=subprocess.DEVNULL)
    assert done.stdout.endswith("opened again\n"), done.stderr[-2000:]


def decoded(jpeg: bytes) -> np.ndarray:
    import cv2

    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)


def difference(seen: np.ndarray) -> float:
    """Return the mean absolute difference to the most similar image of the camera, in levels of 0 to 255."""
    assert seen.shape[1::-1] == FRAME_WH
    return min(float(np.abs(seen.astype(int) - picture).mean()) for picture in pictures())
