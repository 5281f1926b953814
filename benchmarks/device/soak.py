"""Endurance test of `edgekit run`: memory growth, open files, threads and order of frames over several minutes.

    python benchmarks/device/soak.py --clip clip.mp4 --detector-model face_detection_yunet_2026may.onnx -o soak.json

Starts the real command headless at full speed in a child process. Its source is a video of the clips' frames as JPEGs,
repeated without end. Each JSON line of its results is checked, and its memory, files and threads are sampled once per
second. Time counts from the first result; the first minute is warm-up. Options after `--` go to `edgekit run`.
Prints the verdict; the exit code is 3 if a requirement is not met.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

import click
import cv2
from rich.console import Console
from rich.progress import Progress

from edgekit.boards import read_board
from edgekit.device.health.sampler import ProcessUse, read_process
from edgekit.device.sources import open_source
from edgekit.errors import EXIT_GATE, EXIT_OK, EdgekitError, InputError
from edgekit.files import write_atomic

MAX_GROWTH_MB = 5.0
MAX_PEAK_MB = 160.0
_PATH = click.Path(path_type=Path)
_MB_PER_MIB = (1 << 20) / 1e6
_JPEG_QUALITY = 85
_PERIOD_S = 1.0
# Longest time from SIGTERM to the end of the process.
_STOP_TIMEOUT_S = 30


@dataclass
class Order:
    """Number of result lines, and one fault for each line that is out of order."""

    frames: int = 0
    faces: int = 0
    faults: list[str] = field(default_factory=list)

    def take(self, line: str) -> None:
        """Check one line of the results."""
        found = re.match(r'\{"sequence": (\d+), "monotonic_s": ([0-9.]+)', line)
        if found is None:
            self.faults.append(f"no result: {line[:80]}")
        elif int(found[1]) != self.frames:
            self.faults.append(f"frame {found[1]} instead of {self.frames}")
        self.frames += 1
        self.faces += line.count('"xyxy"')


@dataclass(frozen=True)
class Verdict:
    """Summary of the samples; `failed` names the requirements that are not met."""

    frames: int
    faces: int
    seconds: float
    fps: float
    peak_mb: float
    after_warm_up_mb: float
    growth_mb: float
    open_files: tuple[int, int]
    threads: tuple[int, int]
    exit_code: int
    failed: tuple[str, ...]


def judge(
    samples: Sequence[tuple[float, ProcessUse]], order: Order, exit_code: int, warm_up_s: float, min_frames: int
) -> Verdict:
    """Return the verdict on samples of (seconds since the start, use).

    Numbers of open files and threads are compared between the first and the second half after the warm-up. Each half is
    represented by its most frequent number, because reading the board's state opens a file for a short time.

    Raises:
        InputError: There are too few samples after the warm-up.
    """
    later = [(second, use) for second, use in samples if second >= warm_up_s]
    if len(later) < 4:
        raise InputError(f"only {len(later)} samples after {warm_up_s:g} s of warm-up: run for longer")
    first, last = later[: len(later) // 2], later[len(later) // 2 :]
    resident_mb = [use.resident_mib * _MB_PER_MIB for _, use in later]
    growth_mb = max(resident_mb) - resident_mb[0]
    peak_mb = max(use.peak_mib for _, use in samples) * _MB_PER_MIB
    files = (_usual([use.open_files for _, use in first]), _usual([use.open_files for _, use in last]))
    threads = (_usual([use.threads for _, use in first]), _usual([use.threads for _, use in last]))
    failed = {
        f"memory grew by {growth_mb:.1f} MB, more than {MAX_GROWTH_MB:g}": growth_mb >= MAX_GROWTH_MB,
        f"peak memory of {peak_mb:.0f} MB, more than {MAX_PEAK_MB:g}": peak_mb > MAX_PEAK_MB,
        f"open files went from {files[0]} to {files[1]}": files[0] != files[1],
        f"threads went from {threads[0]} to {threads[1]}": threads[0] != threads[1],
        f"{len(order.faults)} frames out of order, first: {(order.faults or [''])[0]}": bool(order.faults),
        f"{order.frames} frames, fewer than {min_frames}": order.frames < min_frames,
        f"exit code {exit_code} instead of {EXIT_OK}": exit_code != EXIT_OK,
    }
    return Verdict(
        frames=order.frames,
        faces=order.faces,
        seconds=round(samples[-1][0], 1),
        fps=round(order.frames / samples[-1][0], 1),
        peak_mb=round(peak_mb, 1),
        after_warm_up_mb=round(resident_mb[0], 1),
        growth_mb=round(growth_mb, 2),
        open_files=files,
        threads=threads,
        exit_code=exit_code,
        failed=tuple(text for text, holds in failed.items() if holds),
    )


def jpegs(clips: Sequence[Path], console: Console) -> list[bytes]:
    """Return all frames of the clips as JPEG files."""
    pictures = []
    for clip in clips:
        with open_source(str(clip), console.print) as source:
            for frame in source:
                _, data = cv2.imencode(".jpg", frame.image_bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
                pictures.append(data.tobytes())
    return pictures


# The command line, with videos that begin again when they end.
_ENDLESS = """
import cv2
from edgekit.cli import main
from edgekit.device.sources import files
decode = files.VideoSource._decode
def decode_endlessly(source):
    image = decode(source)
    if image is None and source._capture.open(source.name, cv2.CAP_FFMPEG):
        image = decode(source)
    return image
files.VideoSource._decode = decode_endlessly
main()
"""


@contextmanager
def video_of(pictures: Sequence[bytes]) -> Iterator[Path]:
    """Yield the path of a video of the JPEGs."""
    with tempfile.TemporaryDirectory(prefix="edgekit-soak-") as folder:
        path = Path(folder) / "clips.mjpeg"
        path.write_bytes(b"".join(pictures))
        yield path


def read_lines(stream: IO[str], order: Order) -> None:
    """Check each line of the stream with `order`."""
    for line in stream:
        order.take(line)


def soak(
    source: Path, run_options: Sequence[str], seconds: float, min_frames: int, console: Console
) -> tuple[list[tuple[float, ProcessUse]], Order, int]:
    """Run for `seconds` and at least `min_frames`; return the samples, the results and the exit code."""
    command = [sys.executable, "-c", _ENDLESS, "run", "--source", str(source), "--jsonl", "-", *run_options]
    order, samples = Order(), []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running, Progress(console=console) as bar:
        assert running.stdout is not None
        reader = threading.Thread(target=read_lines, args=(running.stdout, order))
        reader.start()
        try:
            task = bar.add_task("soaking", total=seconds)
            while running.poll() is None and order.frames == 0:
                time.sleep(_PERIOD_S / 10)
            start_s = time.monotonic()
            while running.poll() is None:
                now_s = time.monotonic() - start_s
                use = read_process(running.pid)
                if use is not None:
                    samples.append((now_s, use))
                bar.update(task, completed=now_s, description=f"{order.frames} frames")
                if now_s >= seconds and order.frames >= min_frames:
                    break
                time.sleep(_PERIOD_S)
            if running.poll() is None:
                running.send_signal(signal.SIGTERM)
            exit_code = running.wait(_STOP_TIMEOUT_S)
        finally:
            running.kill()
            reader.join()
    return samples, order, exit_code


def _usual(values: Sequence[int]) -> int:
    return Counter(values).most_common(1)[0][0]


@click.command()
@click.option(
    "--clip",
    "clips",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    help="Video whose frames are repeated. Repeatable.",
)
@click.option("--detector-model", type=_PATH, help="YuNet's file; default: as `edgekit run`.")
@click.option("--minutes", default=30.0, show_default=True, type=click.FloatRange(min=0.1), help="Duration.")
@click.option("--min-frames", default=0, type=click.IntRange(0), help="Run until this many frames are processed.")
@click.option(
    "--warm-up", "warm_up_s", default=60.0, show_default=True, help="Seconds at the start that are not judged."
)
@click.option("-o", "report", type=_PATH, help="Write verdict and samples to this file.")
@click.argument("run_options", nargs=-1, type=click.UNPROCESSED)
def main(
    clips: tuple[Path, ...],
    detector_model: Path | None,
    minutes: float,
    min_frames: int,
    warm_up_s: float,
    report: Path | None,
    run_options: tuple[str, ...],
) -> None:
    console = Console(stderr=True)
    options = [*(["--detector", str(detector_model)] if detector_model else []), *run_options]
    with video_of(jpegs(clips, console)) as source:
        samples, order, exit_code = soak(source, options, minutes * 60, min_frames, console)
    verdict = judge(samples, order, exit_code, warm_up_s, min_frames)
    document = {
        "board": asdict(read_board()),
        "clips": [clip.name for clip in clips],
        "run_options": list(run_options),
        "verdict": asdict(verdict),
        "samples": [{"second": round(second, 1), **asdict(use)} for second, use in samples],
    }
    if report is not None:
        write_atomic(report, json.dumps(document, indent=2) + "\n")
    print(json.dumps(document["verdict"], indent=2))
    if verdict.failed:
        print(f"soak failed: {'; '.join(verdict.failed)}", file=sys.stderr)
        sys.exit(EXIT_GATE)


if __name__ == "__main__":
    try:
        main()
    except EdgekitError as error:
        sys.exit(f"soak: {error}")
