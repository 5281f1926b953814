"""Clips of a scene with known events, and the share of each output in the time of the loop.

    python benchmarks/device/door.py
    python benchmarks/device/door.py --detector face_detection_yunet_2026may.onnx --broker mqtt://127.0.0.1 --rounds 5

The scene has 15 frames per second; a face arrives at known times, and each frame shows its number as black and white
bars. `edgekit run` plays it with --event-clips, and every clip is decoded: it must contain its event, begin 4.5 s
before it or with the scene, and miss no frame. Then runs without and with more and more outputs alternate; each ratio
compares with the run without them in the same round. The exit code is 3 if a clip is wrong.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np

from edgekit.device.imaging import read_image
from edgekit.errors import EXIT_GATE
from edgekit.preprocess import ImageU8

FPS = 15
SIZE_WH = (640, 480)
# Seconds of the scene in which the face is there.
VISITS = ((12, 18), (40, 43), (46, 50), (75, 95), (120, 124), (150, 170))
# A face that arrives has an event after the hold of a second and a detection.
MOST_DELAY_S = 3.0
LEAST_BEFORE_S = 4.5
_BITS, _BAR_PX, _STRIP_PX = 12, 40, 24
_FACE = Path(__file__).parents[2] / "edgekit" / "assets" / "astronaut.png"
_ZONES = ("--zone", "left=0,0,0.5,0,0.5,1,0,1", "--zone", "right=0.5,0,1,0,1,1,0.5,1")


def write_scene(path: Path, seconds: int) -> None:
    """Write the scene as a video of JPEGs."""
    width, height = SIZE_WH
    portrait = cv2.resize(read_image(_FACE)[10:270, 90:360], (405, 390))
    noise = np.random.default_rng(0).integers(-6, 7, (height, width, 1))
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), FPS, SIZE_WH)
    for number in range(seconds * FPS):
        second = number / FPS
        image = np.full((height, width, 3), 110, np.uint8)
        if any(first <= second < last for first, last in VISITS):
            left = 20 + round(60 * (1 + np.sin(second)))
            image[30:420, left : left + 405] = portrait
        image = np.clip(image + np.roll(noise, number * 7, axis=1), 0, 255).astype(np.uint8)
        bars = [255 * (number >> bit & 1) for bit in range(_BITS)]
        image[-_STRIP_PX:, : _BITS * _BAR_PX] = np.repeat(bars, _BAR_PX)[None, :, None]
        writer.write(image)
    writer.release()


def numbers_of(path: Path) -> list[int]:
    """Return the numbers that the frames of a video show."""
    capture, numbers = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        numbers.append(_number(np.asarray(read[1], np.uint8)))
    return numbers


def _number(image: ImageU8) -> int:
    bars = image[-_STRIP_PX // 2, _BAR_PX // 2 : _BITS * _BAR_PX : _BAR_PX, 0] > 127
    return sum(1 << bit for bit, is_set in enumerate(bars) if is_set)


@contextmanager
def receiver() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield an address to which events can be posted, and the list of them."""
    events: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            events.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", events
        server.shutdown()


def run(scene: Path, detector: str, *options: object) -> dict[str, Any]:
    """Return the summary of `edgekit run`."""
    words = ["run", "--source", scene, "--detector", detector, "--json", "--quiet", *options]
    command = [sys.executable, "-m", "edgekit.cli", *map(str, words)]
    summary: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return summary


def faults_of(events: list[dict[str, Any]], clips: Path, seconds: int) -> list[str]:
    """Return what is wrong with the events and their clips, one line per fault."""
    shown = {path.name: numbers_of(path) for path in sorted(clips.glob("*.mp4"))}
    faults = [
        f"{name}: {len(frames)} frames of {frames[0]} to {frames[-1]}"
        for name, frames in shown.items()
        if frames != list(range(frames[0], frames[-1] + 1))
    ]
    for first, _ in (visit for visit in VISITS if visit[0] < seconds):
        if not any(first <= event["sequence"] / FPS < first + MOST_DELAY_S for event in events):
            faults.append(f"no event of the face that arrives at {first} s")
    for event in events:
        frames, number = shown.get(event["clip"], []), event["sequence"]
        if number not in frames or frames[0] > max(0, number - LEAST_BEFORE_S * FPS):
            faults.append(f"{event['clip']} with {len(frames)} frames is not the clip of the event at frame {number}")
    return faults


@click.command(help=__doc__)
@click.option("--detector", default="haar", show_default=True)
@click.option("--broker", default=None, help="mqtt:// address; without it, MQTT is left out.")
@click.option("--seconds", default=180, show_default=True)
@click.option("--rounds", default=5, show_default=True)
def main(detector: str, broker: str | None, seconds: int, rounds: int) -> None:
    """Print the verdict on the clips and the share of the outputs."""
    with tempfile.TemporaryDirectory() as temporary, receiver() as (address, events):
        folder = Path(temporary)
        scene, clips = folder / "scene.avi", folder / "clips"
        write_scene(scene, seconds)
        run(scene, detector, *_ZONES, "--event-clips", clips, "--webhook", address)
        faults = faults_of(events, clips, seconds)
        print(f"{len(events)} events, {len(list(clips.glob('*.mp4')))} clips, {len(faults)} faults", *faults, sep="\n")
        sinks: list[object] = ["--web", "127.0.0.1:0", *(["--mqtt", broker] if broker else [])]
        more: dict[str, list[object]] = {
            "zones": [*_ZONES],
            "zones, web" + (", MQTT" if broker else ""): [*_ZONES, *sinks],
        }
        more[f"{list(more)[-1]}, clips"] = [*_ZONES, *sinks, "--event-clips", folder / "more"]
        ratios: dict[str, list[float]] = {name: [] for name in more}
        for _ in range(rounds):
            plain = run(scene, detector, "--jsonl", folder / "plain.jsonl")["fps"]
            for name, options in more.items():
                ratios[name].append(run(scene, detector, "--jsonl", folder / "more.jsonl", *options)["fps"] / plain)
        for name, found in ratios.items():
            print(f"{name}: {statistics.median(found):.2f} of the rate without ({min(found):.2f} to {max(found):.2f})")
    sys.exit(EXIT_GATE if faults else 0)


if __name__ == "__main__":
    main()
