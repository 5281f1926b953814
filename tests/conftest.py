"""Fixtures for all test folders."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.ports import free_port
from tests.tiny_models import NCNN_GRAPH, tiny_contract, tiny_onnx
from tests.waiting import wait_until

# One thread per test process and child process: they share the cores, and torch's threads wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# On a busy machine, examples take long; a test that fails then would depend on the clock.
settings.register_profile("edgekit", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edgekit")

# A background process inherits an ignored SIGINT, and so do its children; but tests interrupt their children.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared data and reference vectors; the test is skipped if the folder is missing."""
    folder = Path(os.environ.get("EDGEKIT_SHARED") or Path(__file__).parents[2] / "shared")
    if not folder.is_dir():
        pytest.skip(f"no shared data at '{folder}': set EDGEKIT_SHARED")
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of tests/tiny_models.py as an ONNX file."""
    import onnx

    path = tmp_path_factory.mktemp("tiny") / "tiny.onnx"
    onnx.save(tiny_onnx(tiny_contract()), path)
    return path


@pytest.fixture(scope="session")
def tiny_image_model(tiny_model: Path) -> Path:
    """`tiny_model` for whole images."""
    import onnx

    path = tiny_model.with_name("tiny-image.onnx")
    onnx.save(tiny_onnx(replace(tiny_contract(), subject="image")), path)
    return path


@pytest.fixture(scope="session")
def tiny_ncnn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_model` as a file for ncnn."""
    from edgekit.device.engines.ncnn_engine import pack_ncnn

    path = tmp_path_factory.mktemp("tiny") / "tiny.ncnn"
    path.write_bytes(pack_ncnn(tiny_contract("in0", "out0"), NCNN_GRAPH, b""))
    return path


@pytest.fixture(scope="session")
def yunet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy YuNet for any input size (tests/toy_yunet.py)."""
    from tests.toy_yunet import save_toy_yunet

    return save_toy_yunet(tmp_path_factory.mktemp("yunet") / "yunet.onnx", "height", "width")


@pytest.fixture(scope="session")
def yunet_640(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy YuNet with an input of 640 x 640 pixels."""
    from tests.toy_yunet import save_toy_yunet

    return save_toy_yunet(tmp_path_factory.mktemp("yunet") / "yunet_640.onnx", 640, 640)


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    """A folder of three images that the tiny model classifies as red, green and blue."""
    import cv2
    import numpy as np

    folder = tmp_path / "crops"
    folder.mkdir()
    for index, colour_bgr in enumerate([(0, 0, 250), (0, 250, 0), (250, 0, 0)]):
        cv2.imwrite(str(folder / f"{index}.png"), np.full((20, 20, 3), colour_bgr, np.uint8))
    return folder


@pytest.fixture(scope="session")
def draw_faces() -> Callable[[Path, dict[str, int]], Path]:
    """Return a function that writes 48 x 48 noise images, `counts` per split, with the seven expressions in turn."""

    def draw(folder: Path, counts: dict[str, int]) -> Path:
        import cv2
        import numpy as np

        from edgekit.models.data import EXPRESSIONS

        generator = np.random.default_rng(0)
        for split, count in counts.items():
            for index in range(count):
                file = folder / split / EXPRESSIONS[index % 7] / f"{index}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                assert cv2.imwrite(str(file), generator.integers(0, 255, (48, 48), dtype=np.uint8))
        return folder

    return draw


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A disk of 1 MiB; the test is skipped if the disk cannot be mounted.

    It is outside of pytest's folder: a killed run leaves it mounted, and later runs cannot remove a mounted folder.
    """
    disk = Path(tempfile.mkdtemp(prefix="edgekit-small-disk-"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, text=True
    )
    if mounted.returncode:
        disk.rmdir()
        pytest.skip(f"no small disk: mount: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)
    disk.rmdir()


# What a client gets, in order: ("pictures", count, size[, colour]), ("broken", count), ("silence", seconds), ("end",),
# ("made", function), whose images are the JPEG files that the function returns.
Script = Sequence[tuple]


class Stream(http.server.ThreadingHTTPServer):
    """An MJPEG camera that plays one script per client, and the last script to all further clients.

    After `clients` clients it responds with status 503.
    """

    daemon_threads = True

    def __init__(self, scripts: Sequence[Script], clients: int = 1000) -> None:
        super().__init__(("127.0.0.1", 0), StreamHandler)
        self.scripts, self.clients = scripts, clients
        self.served = 0
        self.closing = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/video"

    def handle_error(self, request, client_address) -> None:
        pass  # clients disconnect in the middle of an image


class StreamHandler(http.server.BaseHTTPRequestHandler):
    server: Stream

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        number = self.server.served
        self.server.served += 1
        if number >= self.server.clients:
            self.send_error(503)
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for step in self.server.scripts[min(number, len(self.server.scripts) - 1)]:
            if not self._play(*step):
                return

    def _play(self, kind: str, *values) -> bool:
        if kind == "end":
            return False
        if kind == "made":
            return all(self._send(values[0]()) for _ in iter(int, 1))
        if kind == "silence":
            return not self.server.closing.wait(values[0])
        for index in range(values[0]):
            picture = _rubbish(index) if kind == "broken" else _plain_jpeg(*values[1:])
            if not self._send(picture):
                return False
        return True

    def _send(self, jpeg: bytes) -> bool:
        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
        self.wfile.write(head.encode() + jpeg + b"\r\n")
        return not self.server.closing.wait(0.02)


def _plain_jpeg(size_wh: tuple[int, int], bgr: tuple[int, int, int] = (100, 100, 100)) -> bytes:
    import cv2
    import numpy as np

    return cv2.imencode(".jpg", np.full((*size_wh[::-1], 3), bgr, np.uint8))[1].tobytes()


def _rubbish(seed: int) -> bytes:
    import numpy as np

    return np.random.default_rng(seed).integers(0, 256, 3000, np.uint8).tobytes()


@pytest.fixture
def play() -> Iterator[Callable[..., Stream]]:
    """Return a function that starts a `Stream` with scripts; the option `clients` limits the served clients."""
    servers = []

    def start(*scripts: Script, **options) -> Stream:
        server = Stream(scripts, **options)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.closing.set()
        server.shutdown()
        server.server_close()


class ScriptedBoard:
    """A Raspberry Pi's files below `root`, and its `vcgencmd` in `tools`; `set` changes their values.

    The output has the form of the real tool; tests/fixtures/boards/pi3bplus-hot.txt names the sources.
    """

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.tools = folder / "tools"
        self._state = folder / "state"
        for path in (self.root / "sys/class/thermal/thermal_zone0", self.tools, self._state, self.root / "proc"):
            path.mkdir(parents=True)
        (self.root / "sys/class/thermal/thermal_zone0/type").write_text("cpu-thermal\n")
        tool = self.tools / "vcgencmd"
        tool.write_text(
            "#!/bin/sh\n"
            f"echo >> '{self._state}/asked'\n"
            'case "$*" in\n'
            f"get_throttled) echo throttled=$(cat '{self._state}/throttled') ;;\n"
            f"'measure_clock arm') echo 'frequency(45)='$(cat '{self._state}/clock') ;;\n"
            "esac\n"
        )
        tool.chmod(0o755)
        self.set()

    def set(self, temperature_c: float = 45.0, flags: int = 0, clock_mhz: int = 1400) -> None:
        """Set the state of the board."""
        for path, text in {
            self.root / "sys/class/thermal/thermal_zone0/temp": f"{temperature_c * 1000:.0f}",
            self._state / "throttled": f"{flags:#x}",
            self._state / "clock": f"{clock_mhz}000000",
        }.items():
            # Replaced, so that a reader never sees an empty file.
            path.with_suffix(".new").write_text(f"{text}\n")
            path.with_suffix(".new").replace(path)

    @property
    def times_asked(self) -> int:
        """The number of runs of the firmware's tool."""
        asked = self._state / "asked"
        return len(asked.read_text()) if asked.exists() else 0


@pytest.fixture
def scripted_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScriptedBoard:
    """A board whose state the test sets; its tools are first in PATH."""
    board = ScriptedBoard(tmp_path / "board")
    monkeypatch.setenv("PATH", f"{board.tools}:{os.environ['PATH']}")
    return board


# Debian installs mosquitto in /usr/sbin, which is only in root's PATH.
MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")


class Broker:
    """A real mosquitto, on a port that stays the same over restarts."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.folder = folder
        self.host = "127.0.0.1"
        self.lines = [f"listener {self.port} {self.host}", "allow_anonymous true", "user root"]
        self.running: subprocess.Popen[bytes] | None = None

    def remember(self) -> None:
        """Keep subscriptions and queued messages over a kill, like a broker in production."""
        self.lines += ["persistence true", f"persistence_location {self.folder}/"]
        self.lines += ["autosave_on_changes true", "autosave_interval 1"]

    def move(self, host: str) -> None:
        """Change the address from the next start on."""
        self.host, self.lines[0] = host, f"listener {self.port} {host}"

    def start(self) -> None:
        (self.folder / "broker.conf").write_text("\n".join(self.lines) + "\n")
        command = [MOSQUITTO, "-c", str(self.folder / "broker.conf")]
        with (self.folder / "broker.log").open("ab") as log:
            self.running = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(self._accepts_connections)

    def kill(self) -> None:
        self.running.kill()
        self.running.wait()

    def publish(self, topic: str, payload: bytes | str, retain: bool = False) -> None:
        """Publish a message and wait until the broker confirms it."""
        from paho.mqtt import publish

        publish.single(topic, payload, qos=1, retain=retain, hostname=self.host, port=self.port)

    def listen(self, stack: ExitStack, client_id: str = "") -> Listener:
        """Subscribe to all topics until `stack` is closed."""
        return Listener(self.host, self.port, stack, client_id)

    def _accepts_connections(self) -> bool:
        assert self.running.poll() is None, (self.folder / "broker.log").read_text()
        try:
            socket.create_connection((self.host, self.port)).close()
        except ConnectionRefusedError:
            return False
        return True


class Listener:
    """A subscriber that records its messages."""

    def __init__(self, host: str, port: int, stack: ExitStack, client_id: str) -> None:
        import paho.mqtt.client as paho

        self.messages: list[tuple[str, bytes, bool]] = []
        self.subscribed = False
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id, clean_session=not client_id)
        client.reconnect_delay_set(0.1, 0.2)
        client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        client.on_subscribe = lambda *_: setattr(self, "subscribed", True)
        client.on_disconnect = lambda *_: setattr(self, "subscribed", False)
        client.on_message = lambda _, __, m: self.messages.append((m.topic, m.payload, m.retain))
        client.connect(host, port)
        client.loop_start()
        stack.callback(client.loop_stop)
        stack.callback(client.disconnect)
        wait_until(lambda: self.subscribed)

    def until(self, condition: Callable[[], bool]) -> None:
        wait_until(condition)

    def on(self, topic: str) -> list[bytes]:
        return [payload for name, payload, _ in list(self.messages) if name == topic]

    def entities(self, node: str = "edgekit_test", prefix: str = "homeassistant") -> dict[str, dict[str, Any]]:
        """Return the latest discovery of a camera: what describes each entity, by object id; empty: it is removed."""
        wait_until(lambda: self.on(f"{prefix}/device/{node}/config"))
        components = json.loads(self.on(f"{prefix}/device/{node}/config")[-1])["cmps"]
        return {
            key.removeprefix(f"{node}_"): {} if set(entity) == {"p"} else entity for key, entity in components.items()
        }

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(payload) for payload in self.on("edgekit/test/event")]

    def sequences(self) -> list[int]:
        return [event["sequence"] for event in self.events()]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A broker that is not started; the test is skipped if mosquitto is not installed."""
    if MOSQUITTO is None:
        pytest.skip("no mosquitto here: apt install mosquitto")
    broker = Broker(tmp_path)
    yield broker
    if broker.running is not None:
        broker.kill()


@pytest.fixture
def fill() -> Callable[..., Path]:
    """Return a function that fills a disk except for `but_bytes`; the deletion of the returned file frees the space.

    The disk is never fuller than that, because a writer in another thread would fail too early.
    """

    def fill(disk: Path, but_bytes: int = 0) -> Path:
        ballast = disk / "ballast"
        with ballast.open("wb", buffering=0) as stream, suppress(OSError):
            while but_bytes == 0 or shutil.disk_usage(disk).free - but_bytes >= 4096:
                stream.write(b"\0" * 4096)
        return ballast

    return fill
