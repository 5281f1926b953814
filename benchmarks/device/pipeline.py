"""Speed of edgekit's pipeline against two simpler loops, and of its YuNet against OpenCV's, on equal frames.

    python benchmarks/device/pipeline.py --clip clip.mp4 --detector-model face_detection_yunet_2026may.onnx

Prints frame rates, numbers of faces, and ratios of times with their required values. The classic loop of many tutorials
runs Haar's frontalface_default (scale 1.1, 5 neighbours, no minimum size) on each 640x480 frame and classifies face by
face. The plain loop runs in one thread: YuNet at 320 pixels on each frame, then all faces in one batch. The pipeline is
that of `edgekit run`: stages in threads, faces tracked between detections and classified by its schedule, or in every
frame with `--classify-every 1`.

Each round is one pair of `pairs.py`. Times are wall time; the time of the pipeline includes the start of its threads.
"""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from edgekit.boards import read_board
from edgekit.device.detection import DEFAULT_SCORE_THRESHOLD
from edgekit.device.detection.yunet import NMS_THRESHOLD, TOP_K, YuNet, input_sizes
from edgekit.device.engines.classifier import Classifier
from edgekit.device.engines.session import versions
from edgekit.device.frame import Frame, RecordedSource, presentation_time_s
from edgekit.device.imaging import resize
from edgekit.device.pipeline import StreamOptions
from edgekit.device.pipeline.classification_schedule import ClassifyEvery
from edgekit.device.pipeline.loop import frame_results, recognise
from edgekit.device.pipeline.summary import LatencyMeter, Tally
from edgekit.device.sources import open_source
from edgekit.device.stages import StageTimer
from edgekit.device.tracking import FaceTracker
from edgekit.device.tracking.detection_schedule import Adaptive
from edgekit.errors import EdgekitError
from edgekit.model_store import resolve_model
from edgekit.preprocess import ImageU8, crop_face, softmax

sys.path.append(str(Path(__file__).resolve().parents[1]))
from pairs import time_pairs

FRAME_WH = (640, 480)
# By `--classify-every`.
REQUIRED_CLASSIC = {"auto": 60.0, "1": 25.0}
REQUIRED_PLAIN = {"auto": 2.2, "1": 1.3}
REQUIRED_EVERY = 1.1
REQUIRED_YUNET = 1.5
_FPS = 25.0

# Takes frames in order and returns the number of faces in them.
Work = Callable[[Sequence[ImageU8]], int]


@dataclass(frozen=True)
class Comparison:
    """`ours` compared with `theirs`: median ms per frame, number of faces, ratio of each round and their median."""

    name: str
    ours_ms: float
    theirs_ms: float
    ours_faces: int
    theirs_faces: int
    ratio: float
    ratios: tuple[float, ...]
    required: float


def load_frames(clip: str, count: int) -> list[ImageU8]:
    """Return the clip's first frames, scaled to fit into 640x480 and padded with black."""
    frames = []
    with open_source(clip, lambda text: click.echo(text, err=True)) as source:
        for frame in source:
            height, width = frame.image_bgr.shape[:2]
            scale = min(FRAME_WH[0] / width, FRAME_WH[1] / height)
            size_wh = round(width * scale), round(height * scale)
            canvas = np.zeros((FRAME_WH[1], FRAME_WH[0], 3), np.uint8)
            left, top = (FRAME_WH[0] - size_wh[0]) // 2, (FRAME_WH[1] - size_wh[1]) // 2
            canvas[top : top + size_wh[1], left : left + size_wh[0]] = resize(frame.image_bgr, size_wh)
            frames.append(canvas)
            if len(frames) == count:
                break
    return frames


class Memory(RecordedSource):
    """Recorded source that yields the given frames from memory."""

    name = "memory"
    fps = _FPS

    def __init__(self, frames: Sequence[ImageU8]) -> None:
        self._frames = frames
        self.frame_count = len(frames)

    def __iter__(self) -> Iterator[Frame]:
        for index, image in enumerate(self._frames):
            if self._stopped:
                return
            yield Frame(index, time.monotonic(), time.time(), image)


def our_pipeline(classifier: Classifier, detector: YuNet, classify_every: ClassifyEvery) -> Work:
    """Return a function that processes frames in the pipeline of `edgekit run`."""

    def work(frames: Sequence[ImageU8]) -> int:
        tally = Tally()
        with Memory(frames) as source:
            clock = presentation_time_s(source)
            face_tracker = FaceTracker(detector, Adaptive(), presentation_time_s=clock)
            results = frame_results(
                source,
                face_tracker,
                classifier,
                LatencyMeter(),
                smooth_s=StreamOptions().smooth_s,
                classify_every=classify_every,
                presentation_time_s=clock,
            )
            with closing(results):
                for frame, result in results:
                    tally.write(frame, result)
        return tally.faces

    return work


def each(work: Callable[[ImageU8], int]) -> Work:
    """Return a function that calls `work` for each of many frames and returns the total number of faces."""
    return lambda frames: sum(map(work, frames))


def plain_loop(classifier: Classifier, detector: YuNet) -> Work:
    """Return the plain loop: a function that detects, crops and classifies on each frame, in one thread."""
    localizer = FaceTracker(detector, None)

    def work(image_bgr: ImageU8) -> int:
        frame = Frame(sequence=0, monotonic_s=time.monotonic(), wall_s=time.time(), image=image_bgr)
        return len(recognise(frame, localizer, classifier, StageTimer()).faces)

    return each(work)


def classic_loop(classifier: Classifier) -> Work:
    """Return the loop of many tutorials: Haar on each frame, and one classification per face."""
    cascade = cv2.CascadeClassifier(f"{cv2.data.haarcascades}haarcascade_frontalface_default.xml")
    contract = classifier.contract

    def work(image_bgr: ImageU8) -> int:
        gray = cv2.cvtColor(image_bgr, cv2.COLOR_BGR2GRAY)
        faces = cascade.detectMultiScale(gray, scaleFactor=1.1, minNeighbors=5)
        for x, y, width, height in faces:
            crop = crop_face(image_bgr, (x, y, x + width, y + height), contract.crop, contract.input.size_hw, resize)
            softmax(classifier.logits(crop[np.newaxis]))
        return len(faces)

    return each(work)


def our_yunet(detector: YuNet) -> Work:
    """Return a function that runs edgekit's YuNet: resize, net, decoding, non-maximum suppression."""
    return each(lambda image_bgr: len(detector.detect(image_bgr)))


def opencvs_yunet(model_path: Path, size_px: int) -> Work:
    """Return a function that runs OpenCV's FaceDetectorYN at the same size, resize included."""
    content_wh, _ = input_sizes(FRAME_WH, size_px)
    detector = cv2.FaceDetectorYN.create(str(model_path), "", content_wh, DEFAULT_SCORE_THRESHOLD, NMS_THRESHOLD, TOP_K)

    def work(image_bgr: ImageU8) -> int:
        if content_wh != FRAME_WH:
            image_bgr = cv2.resize(image_bgr, content_wh, interpolation=cv2.INTER_LINEAR)
        faces = detector.detect(image_bgr)[1]
        return 0 if faces is None else len(faces)

    return each(work)


def compare(
    name: str, ours: Work, theirs: Work, frames: Sequence[ImageU8], rounds: int, per_round: int, required: float
) -> Comparison:
    """Return the comparison of two functions over `rounds` rounds of `per_round` consecutive frames each."""
    for work in (ours, theirs):
        work(frames[:1])

    def on_part(work: Work, index: int) -> None:
        start = index * per_round
        work([frames[(start + offset) % len(frames)] for offset in range(per_round)])

    pairs = time_pairs(functools.partial(on_part, ours), functools.partial(on_part, theirs), rounds)
    return Comparison(
        name=name,
        ours_ms=pairs.first_s * 1e3 / per_round,
        theirs_ms=pairs.second_s * 1e3 / per_round,
        ours_faces=ours(frames),
        theirs_faces=theirs(frames),
        ratio=pairs.ratio,
        ratios=pairs.ratios,
        required=required,
    )


def show(comparisons: Sequence[Comparison], console: Console) -> None:
    """Print the comparisons as a table."""
    table = Table()
    table.add_column("comparison", no_wrap=True)
    for column in ("ours", "theirs", "ratio (range)", "required"):
        table.add_column(column, justify="right")
    for item in comparisons:
        table.add_row(
            item.name,
            f"{item.ours_ms:.2f} ms\n{1e3 / item.ours_ms:.1f} fps\n{item.ours_faces} faces",
            f"{item.theirs_ms:.2f} ms\n{1e3 / item.theirs_ms:.1f} fps\n{item.theirs_faces} faces",
            f"{item.ratio:.2f}\n({min(item.ratios):.2f} to {max(item.ratios):.2f})",
            f"{item.required:g}: {'met' if item.ratio >= item.required else 'missed'}",
        )
    console.print(table)


@click.command()
@click.option("--clip", default="demo", show_default=True, help="A source that ends: a video file, or `demo`.")
@click.option("--detector-model", type=click.Path(path_type=Path), required=True, help="YuNet's file of May 2026.")
@click.option("--model", default="default", show_default=True, help="The classifier, an exported .onnx.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads per library.")
@click.option("--classify-every", type=click.Choice(["auto", "1"]), default="auto", show_default=True)
@click.option("--frames", "frame_count", type=click.IntRange(min=1), default=300, show_default=True, help="At most.")
@click.option("--rounds", type=click.IntRange(min=3), default=9, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(
    clip: str,
    detector_model: Path,
    model: str,
    threads: int,
    classify_every: str,
    frame_count: int,
    rounds: int,
    as_json: bool,
) -> None:
    """Compare frames per second on a clip's frames in memory."""
    cv2.setNumThreads(threads)
    try:
        frames = load_frames(clip, frame_count)
        classifier = Classifier(resolve_model(model, (".onnx",)), threads)
        detectors = {
            size: YuNet(detector_model, size, DEFAULT_SCORE_THRESHOLD, intra_op_threads=threads) for size in (320, 640)
        }
    except EdgekitError as error:
        raise click.ClickException(str(error)) from error
    if any(detector.fixed_size_hw for detector in detectors.values()):
        raise click.ClickException(f"'{detector_model}' has a fixed input size: use the edition of May 2026")
    pipeline = our_pipeline(classifier, detectors[320], "auto" if classify_every == "auto" else 1)
    loops = (
        ("classic loop", classic_loop(classifier), REQUIRED_CLASSIC[classify_every]),
        ("plain loop", plain_loop(classifier, detectors[320]), REQUIRED_PLAIN[classify_every]),
        ("classifying every frame", our_pipeline(classifier, detectors[320], classify_every=1), REQUIRED_EVERY),
    )
    comparisons = [
        compare(f"pipeline / {name}", pipeline, theirs, frames, rounds, len(frames), required)
        for name, theirs, required in loops
    ]
    for size, detector in detectors.items():
        ours, theirs = our_yunet(detector), opencvs_yunet(detector_model, size)
        comparisons.append(compare(f"YuNet / OpenCV's at {size}", ours, theirs, frames, rounds, 30, REQUIRED_YUNET))
    show(comparisons, Console(stderr=as_json))
    if as_json:
        document = {
            "board": asdict(read_board()),
            "versions": versions(),
            "threads": threads,
            "frames": len(frames),
            "frame_wh": FRAME_WH,
            "comparisons": [asdict(item) for item in comparisons],
        }
        click.echo(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
