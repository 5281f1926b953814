"""Endurance test of `edgekit run` with all outputs while broker, disk and camera fail again and again.

    python benchmarks/device/fault_soak.py --detector-model face_detection_yunet_2026may.onnx -o fault_soak.json

Needs root for its small disk, and mosquitto. Starts the real command on an MJPEG camera that shows a face which jumps.
The outputs are --jsonl, --csv, --save, --collect and --event-snapshots on a disk that is filled and freed, --mqtt with
a broker that restarts, --webhook, and --web with viewers and a reader of /metrics. At the end the account of each
output is compared with what is on the disk or what the receiver has. SIGTERM to the run ends the test early. Prints the
verdict; the exit code is 3 if a requirement is not met. Options after `--` go to `edgekit run`.
"""

from __future__ import annotations

import csv
import http.client
import http.server
import itertools
import json
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import av
import click
import cv2
import numpy as np
from fault_soak_devices import TOPIC, Broker, Camera, Disk, subscribed, wait_until
from rich.console import Console

from edgekit.boards import read_board
from edgekit.device.health.sampler import ProcessUse, read_process
from edgekit.device.sources import open_source
from edgekit.errors import EXIT_GATE, EXIT_OK, InputError
from edgekit.files import write_atomic

MAX_GROWTH_MB = 5.0
_MB_PER_MIB = (1 << 20) / 1e6
_PATH = click.Path(path_type=Path)
_FRAME_WH = (320, 240)
# A face that jumps to another quarter of the frame is a new track, and so an event.
_JUMP_FRAMES = 40
# How long each fault lasts.
_PULLED_S, _FULL_S, _BROKER_PAUSE_S = 3.0, 12.0, 3.0
_STOP_TIMEOUT_S = 60.0
_WEB_TIMEOUT_S = 10.0


@dataclass
class Seen:
    """What the observers of a run have seen.

    Attributes:
        samples: Seconds since the first result, and the use of the process.
        frames: Frames with a result, by /metrics.
        images: Images that the viewers received.
        posted: Ids of the events that the webhook receiver has.
        received: Ids of the events that the MQTT subscriber has.
        unreachable: How often /metrics did not respond.
        faults: How often each fault was made.
        stop_s: Seconds from SIGTERM to the end of the process.
    """

    samples: list[tuple[float, ProcessUse]] = field(default_factory=list)
    frames: int = 0
    images: int = 0
    posted: list[str] = field(default_factory=list)
    received: list[str] = field(default_factory=list)
    unreachable: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    stop_s: float = 0.0


@dataclass(frozen=True)
class Plan:
    """How many frames to process, how often disk, camera and broker fail, and how many viewers there are."""

    frames: int
    disk_fills: int
    pulls: int
    restart_s: float
    warm_up_s: float
    camera_fps: float
    viewers: int


def pictures(clip: str, console: Console) -> list[bytes]:
    """Return JPEG files: the frames of a clip in one quarter of a larger frame after the other."""
    width, height = _FRAME_WH
    jpegs = []
    with open_source(clip, console.print) as source:
        for index, frame in enumerate(source):
            canvas = np.full((height, width, 3), 90, np.uint8)
            row, column = divmod(index // _JUMP_FRAMES % 4, 2)
            top, left = row * height // 2, column * width // 2
            canvas[top : top + height // 2, left : left + width // 2] = cv2.resize(
                frame.image_bgr, (width // 2, height // 2), interpolation=cv2.INTER_AREA
            )
            jpegs.append(cv2.imencode(".jpg", canvas)[1].tobytes())
    return jpegs


def soak(clip: str, plan: Plan, options: Sequence[str], folder: Path, console: Console) -> tuple[Seen, int, Any, str]:
    """Run with all faults; return the observations, the exit code, the document and the messages of the run."""
    seen = Seen()
    with ExitStack() as opened:
        disk = Disk(folder / "disk", 2048)
        opened.callback(disk.unmount)
        camera = Camera(partial(itertools.cycle, pictures(clip, console)), plan.camera_fps)
        opened.callback(camera.pull)
        broker = Broker(folder)
        opened.callback(broker.stop)
        seen.received = opened.enter_context(subscribed(broker.port))
        hook = opened.enter_context(_receiver(seen.posted))
        with socket.create_server(("127.0.0.1", 0)) as server:
            web = f"127.0.0.1:{server.getsockname()[1]}"
        messages = opened.enter_context((folder / "messages.txt").open("w+"))
        command = [sys.executable, "-m", "edgekit.cli", "run", "--source", camera.url, *_outputs(disk.folder / "out")]
        command += ["--mqtt", f"mqtt://127.0.0.1:{broker.port}", "--webhook", hook, "--web", web, "--json", *options]
        running = opened.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=messages, text=True))
        opened.callback(running.kill)
        for path in ("/api/events", *["/stream.mjpg"] * plan.viewers):
            threading.Thread(target=_view, args=(web, path, seen, running), daemon=True).start()
        _observe(running, web, seen, plan, (disk, camera, broker), console)
        # The camera and the broker work again, and the disk is free.
        ended_s = time.monotonic()
        running.send_signal(signal.SIGTERM)
        document, _ = running.communicate(timeout=_STOP_TIMEOUT_S)
        seen.stop_s = time.monotonic() - ended_s
        written = json.loads(document)["outputs"] if document.startswith("{") else {}
        wait_until(lambda: len(set(seen.received)) >= written["mqtt"]["written"], "the subscriber misses events")
        messages.seek(0)
        stored = stored_items(disk.folder / "out") | {
            "mqtt": Counter(seen.received),
            "webhook": Counter(seen.posted),
        }
        return seen, running.returncode, {"outputs": written, "stored": stored}, messages.read()


def _outputs(folder: Path) -> list[str]:
    """Return the options of the outputs that write below a folder; nothing is deleted, so that all can be counted."""
    return [
        "--jsonl", f"{folder}/r.jsonl", "--csv", f"{folder}/r.csv", "--save", f"{folder}/o.mp4",
        "--rotate-files", "20MB,keep=9999",
        "--collect", f"{folder}/crops", "--collect-when", "every:1s",
        "--pictures-max-mb", "1000000", "--event-snapshots", f"{folder}/events",
        "--event-hold", "0s",
        "--mqtt-topic", TOPIC,
    ]  # fmt: skip


@contextmanager
def _receiver(posted: list[str]) -> Iterator[str]:
    """Yield the address of a webhook receiver that appends the id of each event to a list."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["event_id"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@contextmanager
def _get(web: str, path: str) -> Iterator[http.client.HTTPResponse]:
    with closing(http.client.HTTPConnection(web, timeout=_WEB_TIMEOUT_S)) as connection:
        connection.request("GET", path)
        yield connection.getresponse()


def _view(web: str, path: str, seen: Seen, running: subprocess.Popen[str]) -> None:
    """Receive images or states, and connect again if the connection ends."""
    while running.poll() is None:
        with suppress(OSError, http.client.HTTPException), _get(web, path) as response:
            while chunk := response.read1(1 << 16):
                seen.images += chunk.count(b"\xff\xd8\xff")
        time.sleep(0.5)


def _observe(
    running: subprocess.Popen[str],
    web: str,
    seen: Seen,
    plan: Plan,
    faulty: tuple[Disk, Camera, Broker],
    console: Console,
) -> None:
    """Read /metrics and the process once per second and make the faults, until all frames have a result."""
    disk, camera, broker = faulty
    schedule = sorted(
        [((number + 0.5) * plan.frames / plan.disk_fills, "disk full") for number in range(plan.disk_fills)]
        + [((number + 0.7) * plan.frames / plan.pulls, "camera pulled") for number in range(plan.pulls)]
    )
    actions: dict[str, Callable[[], None]] = {
        "disk full": lambda: _for_a_while(disk.fill, disk.free, _FULL_S),
        "camera pulled": lambda: _for_a_while(camera.pull, camera.plug, _PULLED_S),
        "broker restarted": lambda: broker.restart(_BROKER_PAUSE_S),
    }
    acting: list[threading.Thread] = []
    started_s = restarted_s = time.monotonic()
    while running.poll() is None and (seen.frames < plan.frames or any(thread.is_alive() for thread in acting)):
        try:
            with _get(web, "/metrics") as response:
                seen.frames = _metric(response.read().decode(), "edgekit_frames_total")
        except (OSError, http.client.HTTPException):
            seen.unreachable += bool(seen.frames)
        now_s = time.monotonic()
        if not seen.frames:
            started_s = restarted_s = now_s
        use = read_process(running.pid)
        if use is not None:
            seen.samples.append((now_s - started_s, use))
        due = [name for at, name in schedule if at <= seen.frames]
        del schedule[: len(due)]
        if now_s - restarted_s >= plan.restart_s and seen.frames < plan.frames:
            restarted_s = now_s
            due.append("broker restarted")
        for name in due:
            seen.faults[name] += 1
            console.print(f"{now_s - started_s:.0f} s, {seen.frames} frames: {name}", highlight=False)
            acting.append(threading.Thread(target=actions[name], daemon=True))
            acting[-1].start()
        time.sleep(1)


def _for_a_while(begin: Callable[[], None], end: Callable[[], None], seconds: float) -> None:
    begin()
    time.sleep(seconds)
    end()


def _metric(text: str, name: str) -> int:
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} ")), 0)


def stored_items(folder: Path) -> dict[str, Counter[str]]:
    """Return how often each item of the outputs that write files is in a folder; frames of the video by number."""
    records = (json.loads(line) for path in folder.glob("r*.jsonl") for line in path.open())
    rows = (row for path in folder.glob("r*.csv") for row in csv.reader(path.open(newline="")))
    crops = (json.loads(line)["file"] for line in (folder / "crops/crops.jsonl").open())
    frames = sum(_frame_count(path) for path in folder.glob("o*.mp4"))
    return {
        "jsonl": Counter(str(record["sequence"]) for record in records),
        "csv": Counter(f"{row[0]} {row[3]}" for row in rows if row[0] != "sequence"),
        "collect": Counter(name for name in crops if cv2.imread(str(folder / "crops" / name)) is not None),
        "event snapshots": Counter(path.name for path in (folder / "events").glob("*.jpg") if path.stat().st_size),
        "save": Counter(str(number) for number in range(frames)),
    }


def _frame_count(path: Path) -> int:
    with av.open(str(path)) as video:
        return sum(packet.size > 0 for packet in video.demux(video=0))


def judge(
    seen: Seen, exit_code: int, outputs: dict[str, Any], stored: dict[str, Counter[str]], messages: str, plan: Plan
) -> dict[str, Any]:
    """Return the verdict; `failed` names the requirements that are not met."""
    failed = [f"exit code {exit_code} instead of {EXIT_OK}"] if exit_code != EXIT_OK else []
    failed += [f"there is no account of {name}" for name in stored if name not in outputs]
    for name, account in outputs.items():
        if account["produced"] != account["written"] + sum(account["dropped"].values()) + account["waiting"]:
            failed.append(f"{name}: the sum of {account} is wrong")
        if len(stored[name]) != account["written"]:
            failed.append(f"{name}: {account['written']} written, but {len(stored[name])} are there")
        # Only MQTT may deliver twice.
        if name != "mqtt" and (twice := [item for item, count in stored[name].items() if count > 1]):
            failed.append(f"{name}: {len(twice)} are there more than once, such as {twice[0]}")
    later = [use.resident_mib * _MB_PER_MIB for second, use in seen.samples if second >= plan.warm_up_s]
    tenth = max(1, len(later) // 10)
    # Medians of a tenth of the samples each, so that the buffers of an outage do not count as growth.
    growth_mb = median(later[-tenth:]) - median(later[:tenth]) if later else 0.0
    if growth_mb >= MAX_GROWTH_MB:
        failed.append(f"memory grew by {growth_mb:.1f} MB, more than {MAX_GROWTH_MB:g}")
    if seen.frames < plan.frames:
        failed.append(f"{seen.frames} frames, fewer than {plan.frames}")
    failed += [f"an internal error: {line}" for line in messages.splitlines() if "internal error" in line]
    return {
        "frames": seen.frames,
        "seconds": round(seen.samples[-1][0], 1) if seen.samples else 0.0,
        "faults": dict(seen.faults),
        "outputs": outputs,
        "received_twice": sum(stored["mqtt"].values()) - len(stored["mqtt"]),
        "images_viewed": seen.images,
        "metrics_unreachable": seen.unreachable,
        "after_warm_up_mb": round(later[0], 1) if later else None,
        "peak_mb": round(max((use.peak_mib for _, use in seen.samples), default=0.0) * _MB_PER_MIB, 1),
        "growth_mb": round(growth_mb, 2),
        "stop_s": round(seen.stop_s, 2),
        "messages": len(messages.splitlines()),
        "failed": failed,
    }


@click.command()
@click.option("--clip", default="demo", show_default=True, help="Video with a face.")
@click.option("--detector-model", type=_PATH, help="YuNet's file; default: as `edgekit run`.")
@click.option("--frames", default=100_000, show_default=True, type=click.IntRange(1), help="Frames to process.")
@click.option("--camera-fps", default=50.0, show_default=True, help="Frame rate of the camera.")
@click.option("--viewers", default=6, show_default=True, help="Viewers of the web page's video.")
@click.option("--disk-fills", default=10, show_default=True, help="How often the disk is filled.")
@click.option("--pulls", default=20, show_default=True, help="How often the camera is away.")
@click.option("--restart-s", default=60.0, show_default=True, help="Seconds between restarts of the broker.")
@click.option("--warm-up", "warm_up_s", default=60.0, show_default=True, help="Seconds whose memory is not judged.")
@click.option("-o", "report", type=_PATH, help="Write verdict, samples and messages to this file.")
@click.argument("run_options", nargs=-1, type=click.UNPROCESSED)
def main(
    clip: str, detector_model: Path | None, report: Path | None, run_options: tuple[str, ...], **numbers: Any
) -> None:
    plan = Plan(**numbers)
    options = [*(["--detector", str(detector_model)] if detector_model else []), *run_options]
    with tempfile.TemporaryDirectory(prefix="edgekit-fault-soak-") as folder:
        seen, exit_code, counts, messages = soak(clip, plan, options, Path(folder), Console(stderr=True))
    verdict = judge(seen, exit_code, counts["outputs"], counts["stored"], messages, plan)
    document = {
        "board": asdict(read_board()),
        "verdict": verdict,
        "samples": [{"second": round(second, 1), **asdict(use)} for second, use in seen.samples],
        "messages": messages.splitlines(),
    }
    if report is not None:
        write_atomic(report, json.dumps(document, indent=2) + "\n")
    print(json.dumps(verdict, indent=2))
    if verdict["failed"]:
        sys.exit(EXIT_GATE)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"fault_soak: {error}")
