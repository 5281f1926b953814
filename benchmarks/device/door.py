"""Clips of scenes with known events, and what clips and the other outputs cost at a camera's rate.

    python benchmarks/device/door.py
    python benchmarks/device/door.py --detector face_detection_yunet_2026may.onnx --broker mqtt://127.0.0.1 --rounds 3

In the scenes a face comes and goes at known times, and each frame shows its number as black and white bars. Printed are

1. the verdict on a scene that `edgekit run` plays with --event-clips: every clip is decoded, and must contain its
   event, begin 4.5 s before it or with the scene, and miss no frame;
2. the same for 200 events in a row under a limit of 50 MB: the folder is measured during the run and must never be
   larger, and must have the newest clips, each complete;
3. the frames lost, the processor time and the peak memory of runs that play a minute of the first scene at its own 30
   frames per second, with a file of results only, and with more and more outputs. The runs alternate;
4. the bytes of the ring, the video before an event that a run keeps in memory, and the processor time per packet of a
   camera that encodes its video itself.

The exit code is 3 if a clip is wrong or the folder was too large.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np

from edgekit.device.imaging import read_image
from edgekit.device.sinks.clip_writer import PacketRing
from edgekit.device.sinks.mp4 import H264Encoder, PacketFile
from edgekit.errors import EXIT_GATE
from edgekit.preprocess import ImageU8

FPS = 30
SIZE_WH = (640, 480)
# Seconds of the scene in which the face is there.
VISITS = ((12, 18), (40, 43), (46, 50), (75, 95), (120, 124), (150, 170))
# A face that arrives has an event after the hold of a second and a detection.
MOST_DELAY_S = 3.0
LEAST_BEFORE_S = 4.5
# Of the second scene: frames per second, seconds between two arrivals, and of each visit.
ROW_FPS, ROW_PERIOD_S, ROW_VISIT_S = 10, 4, 2
_BITS, _BAR_PX, _STRIP_PX = 13, 40, 24
# Of the ring: five seconds before an event, and two that a slow board may need to detect it.
_RING_S = 7.0
# Of each run at the camera's rate.
_COST_S = 60
_FACE = Path(__file__).parents[2] / "edgekit" / "assets" / "astronaut.png"
_ZONES = ("--zone", "left=0,0,0.5,0,0.5,1,0,1", "--zone", "right=0.5,0,1,0,1,1,0.5,1")


Visits = Sequence[tuple[float, float]]


def scene_frames(seconds: float, fps: int, visits: Visits) -> Iterator[ImageU8]:
    """Yield the frames of a scene in which the face is there in these intervals, in seconds."""
    width, height = SIZE_WH
    portrait = cv2.resize(read_image(_FACE)[10:270, 90:360], (405, 390))
    noise = np.random.default_rng(0).integers(-6, 7, (height, width, 1))
    for number in range(round(seconds * fps)):
        second = number / fps
        image = np.full((height, width, 3), 110, np.uint8)
        if any(first <= second < last for first, last in visits):
            left = 20 + round(60 * (1 + np.sin(second)))
            image[30:420, left : left + 405] = portrait
        image = np.clip(image + np.roll(noise, number * 7, axis=1), 0, 255).astype(np.uint8)
        bars = [255 * (number >> bit & 1) for bit in range(_BITS)]
        image[-_STRIP_PX:, : _BITS * _BAR_PX] = np.repeat(bars, _BAR_PX)[None, :, None]
        yield image


def write_scene(path: Path, seconds: float, fps: int, visits: Visits) -> None:
    """Write a scene as a video of JPEGs."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, SIZE_WH)
    for image in scene_frames(seconds, fps, visits):
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


@dataclass(frozen=True)
class Run:
    """A run that has ended.

    Attributes:
        summary: What `--json` has printed.
        processor_s: Processor time.
        peak_mib: Largest memory, as RSS.
    """

    summary: dict[str, Any]
    processor_s: float
    peak_mib: float


def run(scene: Path, detector: str, *options: object) -> Run:
    """Run `edgekit run` to the end of the scene."""
    words = ["run", "--source", scene, "--detector", detector, "--json", "--quiet", *options]
    command = [sys.executable, "-m", "edgekit.cli", *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        text = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Run(json.loads(text), usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def wrong_clips(shown: dict[str, list[int]]) -> list[str]:
    """Return a line for each clip that misses a frame, or has none; `shown` has the numbers of its frames by name."""
    return [
        f"{name}: {len(frames)} frames of {frames[:1]} to {frames[-1:]}"
        for name, frames in shown.items()
        if not frames or frames != list(range(frames[0], frames[-1] + 1))
    ]


def faults_of_scene(events: list[dict[str, Any]], clips: Path, seconds: int) -> list[str]:
    """Return what is wrong with the events of the first scene and their clips, one line per fault."""
    shown = {path.name: numbers_of(path) for path in sorted(clips.glob("*.mp4"))}
    faults = wrong_clips(shown)
    for first, _ in (visit for visit in VISITS if visit[0] < seconds):
        if not any(first <= event["sequence"] / FPS < first + MOST_DELAY_S for event in events):
            faults.append(f"no event of the face that arrives at {first} s")
    for event in events:
        frames, number = shown.get(event["clip"], []), event["sequence"]
        if number not in frames or frames[0] > max(0, number - LEAST_BEFORE_S * FPS):
            faults.append(f"{event['clip']} with {len(frames)} frames is not the clip of the event at frame {number}")
    return faults


@contextmanager
def largest_size(folder: Path) -> Iterator[list[int]]:
    """Measure the size of a folder again and again during the block; yield a list with the largest, in bytes."""
    largest, ended = [0], threading.Event()

    def measure() -> None:
        while not ended.wait(0.005):
            size = 0
            for path in folder.glob("*"):
                with suppress(OSError):  # the file was deleted meanwhile
                    size += path.stat().st_size
            largest[0] = max(largest[0], size)

    thread = threading.Thread(target=measure)
    thread.start()
    yield largest
    ended.set()
    thread.join()


def check_row(folder: Path, detector: str, count: int, limit_mb: float) -> list[str]:
    """Print the result of `count` events in a row under a limit of the folder; return what is wrong."""
    scene, clips = folder / "row.avi", folder / "row"
    visits = [(start, start + ROW_VISIT_S) for start in range(1, 1 + count * ROW_PERIOD_S, ROW_PERIOD_S)]
    write_scene(scene, 1 + count * ROW_PERIOD_S, ROW_FPS, visits)
    limit = ("--event-clips", clips, "--pictures-max-mb", limit_mb, "--clip-before", "2s", "--clip-after", "1s")
    with receiver() as (address, events), largest_size(clips) as largest:
        run(scene, detector, "--every-frame", *limit, "--webhook", address)
    scene.unlink()
    shown = {path.name: numbers_of(path) for path in sorted(clips.glob("*.mp4"))}
    faults = wrong_clips(shown)
    written = list(dict.fromkeys(event["clip"] for event in events))
    if list(shown) != written[-len(shown) :]:
        faults.append("the clips in the folder are not the newest ones")
    if len(events) < count:
        faults.append(f"{len(events)} events of {count} visits")
    if largest[0] > limit_mb * 1e6:
        faults.append("the folder was larger than its limit")
    for event in events:
        if event["clip"] in shown and event["sequence"] not in shown[event["clip"]]:
            faults.append(f"{event['clip']} does not show its event at frame {event['sequence']}")
    print(
        f"row: {len(events)} events, {len(written)} clips written, the newest {len(shown)} kept, folder at most "
        f"{largest[0] / 1e6:.1f} of {limit_mb:g} MB, {len(faults)} faults"
    )
    return faults


def print_costs(scene: Path, detector: str, broker: str | None, rounds: int) -> None:
    """Print lost frames, processor time and memory of runs at the scene's rate, with more and more outputs.

    The processor time is without the start: that of a run of a second is subtracted.
    """
    folder = scene.parent
    sinks: list[object] = ["--web", "127.0.0.1:0", *(["--mqtt", broker] if broker else [])]
    names = "zones, web" + (", MQTT" if broker else "")
    outputs: dict[str, list[object]] = {
        "only --jsonl": [],
        names: [*_ZONES, *sinks],
        f"{names}, clips": [*_ZONES, *sinks, "--event-clips", folder / "more"],
    }
    common = ("--realtime", "--jsonl", folder / "results.jsonl")
    found: dict[str, list[Run]] = {name: [] for name in outputs}
    ms_per_frame: dict[str, list[float]] = {name: [] for name in outputs}
    for _ in range(rounds):
        for name, options in outputs.items():
            start = run(scene, detector, *common, *options, "--max-frames", FPS)
            whole = run(scene, detector, *common, *options, "--max-frames", _COST_S * FPS)
            frames = whole.summary["frames"] - start.summary["frames"]
            ms_per_frame[name].append(1000 * (whole.processor_s - start.processor_s) / frames)
            found[name].append(whole)
    for name, runs in found.items():
        lost = sum(each.summary["dropped"] for each in runs)
        frames = sum(each.summary["frames"] for each in runs)
        cores = statistics.median(ms_per_frame[name]) * FPS / 1000
        print(
            f"{name}: {lost} of {frames + lost} frames lost; {_spread(ms_per_frame[name], '.2f')} ms per frame, "
            f"{cores:.2f} of a core; peak memory {_spread([each.peak_mib for each in runs], '.0f')} MiB"
        )


def _spread(values: Sequence[float], form: str) -> str:
    """Return median, lowest and highest value."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def print_ring(folder: Path, seconds: float) -> None:
    """Print the largest size of the ring with the encoded frames of the first scene, and what a packet costs.

    The cost is that of a camera which encodes its video: the packet is added to the ring, and written to a clip.
    """
    encoder, packets = H264Encoder(SIZE_WH, FPS), []
    for number, image in enumerate(scene_frames(seconds, FPS, VISITS)):
        packets += encoder.encode(image, number / FPS)
    ring, file = PacketRing(_RING_S), PacketFile(folder / "ring.mp4", SIZE_WH, FPS)
    most_bytes = most_packets = 0
    processor_s = 0.0
    for packet in packets:
        started_s = time.thread_time()
        ring.add(packet, packet.time_us / 1e6)
        file.write([packet])
        processor_s += time.thread_time() - started_s
        held = ring.since(float("-inf"))
        most_bytes = max(most_bytes, sum(len(each.data) for each in held))
        most_packets = max(most_packets, len(held))
    file.close()
    bits_per_s = 8 * sum(len(packet.data) for packet in packets) / seconds
    print(
        f"ring: at most {most_bytes / 1e6:.2f} MB, {most_packets / FPS:.1f} s, of a video of {bits_per_s / 1e6:.2f} "
        f"Mbit/s; {1e6 * processor_s / len(packets):.0f} us of processor time per packet"
    )


@click.command(help=__doc__)
@click.option("--detector", default="haar", show_default=True)
@click.option("--broker", default=None, help="mqtt:// address; without it, MQTT is left out.")
@click.option("--seconds", default=180, show_default=True, help="Length of the first scene.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--events", default=200, show_default=True, help="Events in a row.")
@click.option("--limit-mb", default=50.0, show_default=True, help="Limit of their folder.")
def main(detector: str, broker: str | None, seconds: int, rounds: int, events: int, limit_mb: float) -> None:
    """Print the verdicts on the clips and the costs of the outputs."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        scene, clips = folder / "scene.avi", folder / "clips"
        write_scene(scene, seconds, FPS, VISITS)
        with receiver() as (address, posted):
            run(scene, detector, *_ZONES, "--event-clips", clips, "--webhook", address)
        faults = faults_of_scene(posted, clips, seconds)
        print(f"scene: {len(posted)} events, {len(list(clips.glob('*.mp4')))} clips, {len(faults)} faults")
        faults += check_row(folder, detector, events, limit_mb)
        print(*faults, sep="\n", end="\n" if faults else "")
        print_costs(scene, detector, broker, rounds)
        print_ring(folder, min(seconds, _COST_S))
    sys.exit(EXIT_GATE if faults else 0)


if __name__ == "__main__":
    main()
