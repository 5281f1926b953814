"""Makes the pictures of the documentation from real runs on the bundled public-domain sample and on drawn parts.

    .venv-test/bin/python -m tools.pictures --detector-model face_detection_yunet_2026may.onnx --fer2013 fer2013.tar.gz
    .venv-test/bin/python -m tools.pictures web label      # only these

Writes docs/pictures/; a picture whose data is not given is left as it is. `python benchmarks/models/publish.py` makes
the confusion matrices and reliability diagrams of the shipped models. Needs the environment of `make test`, Chromium,
chromedriver and the DejaVu fonts. The doctor's picture is that of a board replayed from tests/fixtures/boards.
"""

from __future__ import annotations

import argparse
import io
import os
import pty
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from edgekit.device.imaging import read_image
from edgekit.device.sources.demo import DemoSource
from edgekit.model_store import asset
from edgekit.preprocess import ImageU8
from tests.browser import open_browser, wait
from tests.device.sinks.test_teach_page import held, shown
from tests.docs.own_pictures import PARTS, save_parts
from tests.edgekit.doctor.conftest import replayed_in
from tests.things import write_clip
from tests.waiting import wait_until

ROOT = Path(__file__).parents[1]
OUTPUT = ROOT / "docs" / "pictures"
DESKTOP, PHONE = (1280, 860), (390, 844)
COLUMNS = 80
_THEME = TerminalTheme(
    (24, 27, 32),
    (222, 226, 230),
    [
        (60, 64, 70),
        (255, 107, 107),
        (105, 219, 124),
        (255, 212, 59),
        (77, 171, 247),
        (218, 119, 242),
        (59, 201, 219),
        (222, 226, 230),
    ],
)


def make_demo(given: argparse.Namespace, folder: Path) -> None:
    """demo.webp: the annotated video of `edgekit run --source demo`."""
    run("run", "--source", "demo", *given.detector, "--save", folder / "demo.mp4")
    save_moving(OUTPUT / "demo.webp", folder / "demo.mp4", every=3, width_px=400, quality=60)


def make_tracking(given: argparse.Namespace, folder: Path) -> None:
    """tracking.webp: three portraits that move and pass each other, each with its number."""
    write_video(folder / "crowd.mp4", crowd(6.0))
    options = ("--save", folder / "tracked.mp4")
    run("run", "--source", folder / "crowd.mp4", *given.detector, *options)
    save_moving(OUTPUT / "tracking.webp", folder / "tracked.mp4", every=5, width_px=480, quality=50)


def make_web(given: argparse.Namespace, folder: Path) -> None:
    """web-desktop.webp (light) and web-phone.webp (dark): the page of `edgekit run --web` after a minute.

    A face comes to a zone and leaves again, so that the page has several events and clips.
    """
    visit = [frame.image_bgr for _ in range(2) for frame in DemoSource()]
    absence = [np.asarray(cv2.blur(visit[0], (301, 301)), np.uint8)] * 150
    write_video(folder / "portrait.mp4", [*visit, *absence] * 8)
    zone = ("--zone", "door=0.28,0.06,0.72,0.06,0.78,0.92,0.24,0.92")
    options = ("--realtime", "--web", "127.0.0.1:0", "--event-clips", "clips", "--clip-after", "3s", *zone)
    command = ("run", "--source", "portrait.mp4", *given.detector, *options)
    with serving(*command, cwd=folder) as address, open_browser(folder / "profile") as browser:
        show(browser, address, (1280, 1190), dark=False)
        wait(browser, "document.querySelector('#events li:not(.dim)') !== null")
        time.sleep(70)  # the chart covers a minute
        wait(browser, "document.querySelector('#faces li:not(.dim)') !== null")
        save_screen(browser, OUTPUT / "web-desktop.webp")
        show(browser, address, PHONE, dark=True)
        time.sleep(10)
        wait(browser, "document.querySelector('#faces li:not(.dim)') !== null")
        save_screen(browser, OUTPUT / "web-phone.webp")


def make_teach(given: argparse.Namespace, folder: Path) -> None:
    """teach.webp (moving), teach-desktop.webp and teach-phone.webp: a drawn mug and bolt are taught in the browser."""
    del given
    write_clip(folder / "camera.mp4", ["mug", "bolt"], seconds_each=40, repeats=3)
    command = ("teach", "--source", "camera.mp4", "-o", "my.onnx", "--web", "127.0.0.1:0")
    with serving(*command, cwd=folder) as address, open_browser(folder / "profile") as browser:
        show(browser, address, DESKTOP, dark=False)
        wait(browser, "document.getElementById('status').textContent === 'live'")
        frames: list[Image.Image] = []

        def film(until: str, least: int = 1) -> None:
            """Add pictures of the page until a condition holds in the page."""
            while least > 0 or not browser.execute_script(f"return {until}"):  # type: ignore[attr-defined]
                screen = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")  # type: ignore[attr-defined]
                frames.append(screen.resize((640, 430), Image.Resampling.LANCZOS))
                least -= 1

        for name in ("mug", "bolt"):
            browser.find_element("id", "new-name").send_keys(name)  # type: ignore[attr-defined]
            film("true", 2)
            browser.find_element("css selector", "#new button").click()  # type: ignore[attr-defined]
            wait(browser, f"document.querySelector('[data-name={name}]') !== null")
            wait_until(lambda name=name: shown(browser) == name)  # type: ignore[misc]
            with held(browser, name):
                film(f"document.querySelectorAll('[data-name={name}] .thumbs button').length >= 12", 3)
        for name in ("mug", "bolt"):
            wait_until(lambda name=name: shown(browser) == name)  # type: ignore[misc]
            wait(browser, f"document.body.dataset.label === '{name}'")
            film("true", 5)
        browser.find_element("id", "use").click()  # type: ignore[attr-defined]
        film("document.getElementById('in-use').textContent.includes('taught')", 4)
        options = {"save_all": True, "append_images": frames[1:], "duration": 300, "loop": 0}
        frames[0].save(OUTPUT / "teach.webp", quality=45, method=4, minimize_size=True, **options)
        save_screen(browser, OUTPUT / "teach-desktop.webp")
        show(browser, address, PHONE, dark=True)
        wait(browser, "document.body.dataset.label")
        time.sleep(2)
        save_screen(browser, OUTPUT / "teach-phone.webp")


def make_label(given: argparse.Namespace, folder: Path) -> None:
    """label.webp: the page of `edgekit data label` with crops that a run collected."""
    write_video(folder / "crowd.mp4", crowd(6.0))
    options = ("--collect", folder / "collected", "--collect-when", "every:1s")
    run("run", "--source", folder / "crowd.mp4", *given.detector, *options)
    command = ("data", "label", folder / "collected", "--web", "127.0.0.1:0")
    with serving(*command) as address, open_browser(folder / "profile") as browser:
        show(browser, address, (1000, 510), dark=False)
        wait(browser, "[...document.images].length > 0 && [...document.images].every(image => image.complete)")
        save_screen(browser, OUTPUT / "label.webp")


def make_report(given: argparse.Namespace, folder: Path) -> None:
    """report.webp: the page of a benchmark of `default`."""
    run("bench", "default", *given.detector, "--processes", "5", "--html", folder / "report.html")
    with open_browser(folder / "profile") as browser:
        # The first part of the page, as wide as a large phone, so that its text is legible there.
        show(browser, f"file://{folder}/report.html", (600, 900), dark=False, scale=1.5)
        table = "document.querySelectorAll('section')[1].getBoundingClientRect().top"
        height = browser.execute_script(f"return Math.floor({table})")  # type: ignore[attr-defined]
        show(browser, f"file://{folder}/report.html", (600, height), dark=False, scale=1.5)
        save_screen(browser, OUTPUT / "report.webp")


def make_comparison(given: argparse.Namespace, folder: Path) -> None:
    """comparison.webp: `edgekit compare` of `default` in float32 and in eight bits."""
    run("export", "default", "-o", "float32.onnx", "--target", "x86", cwd=folder)
    eight_bits = ("--quantize", "int8", "--calibrate", given.fer2013)
    run("export", "default", "-o", "int8.onnx", "--target", "x86", *eight_bits, cwd=folder)
    options = ("--no-pipeline", "--threads", "1", "--processes", "5", "-o", "report.json")
    run("bench", "float32.onnx", "int8.onnx", *options, cwd=folder)
    with open_browser(folder / "profile") as browser:
        lines = in_terminal("compare", "report.json", cwd=folder)
        save_terminal(browser, folder, OUTPUT / "comparison.webp", "edgekit compare report.json", lines)


def make_doctor(given: argparse.Namespace, folder: Path) -> None:
    """doctor.webp: the findings of `edgekit doctor` on the replayed Raspberry Pi 3B+ with faults."""
    del given
    from edgekit.cli.commands.doctor import show_findings
    from edgekit.cli.output import Output
    from edgekit.doctor.examination import examine

    findings = examine(replayed_in(folder / "board")("doctor-pi3bplus-trixie-bad"))
    os.environ["COLUMNS"] = str(COLUMNS)
    printed = io.StringIO()
    printed.isatty = lambda: True  # type: ignore[method-assign]
    with redirect_stdout(printed):
        show_findings(Output(as_json=False, quiet=False), findings)
    with open_browser(folder / "profile") as browser:
        save_terminal(browser, folder, OUTPUT / "doctor.webp", "edgekit doctor", printed.getvalue())


def make_parts(given: argparse.Namespace, folder: Path) -> None:
    """parts.webp, parts-eval.webp: the drawn parts of the tutorial, and its evaluation."""
    del given
    save_parts(folder / "parts")
    rows = [np.hstack([read_image(folder / f"parts/test/{kind}/{n}.jpg") for n in range(3)]) for kind in PARTS]
    save(OUTPUT / "parts.webp", Image.fromarray(cv2.resize(np.vstack(rows), None, fx=0.6, fy=0.6)[:, :, ::-1]))
    train = ("train", "--data", "parts")
    run(*train, "--threads", "1", "-o", "runs/parts", cwd=folder)
    run("eval", "runs/parts", "--data", "parts", "--plot", "eval.png", cwd=folder)
    save(OUTPUT / "parts-eval.webp", Image.open(folder / "eval.png"))


def make_curves(given: argparse.Namespace, folder: Path) -> None:
    """curves.webp: accuracy and loss of a short training on FER-2013."""
    train = ("train", "--data", given.fer2013, "--epochs", "3", "--precision", "bf16")
    run(*train, "--threads", "1", "-o", "runs/curves", cwd=folder)
    save(OUTPUT / "curves.webp", Image.open(folder / "runs/curves/curves.png"))


def crowd(seconds: float) -> list[ImageU8]:
    """Return frames of 640 x 400 pixels, 25 per second: three copies of the portrait, of which two pass each other."""
    head = read_image(asset("astronaut.png"))[20:250, 120:330]
    mask = np.zeros(head.shape[:2], np.uint8)
    cv2.ellipse(mask, (105, 112), (82, 100), 0, 0, 360, 255, -1)
    mask = cv2.GaussianBlur(mask, (31, 31), 0)
    count = round(seconds * 25)
    frames = []
    for index in range(count):
        turn = 2 * np.pi * index / count
        frame = np.full((400, 640, 3), (190, 182, 170), np.uint8)
        paste(frame, head, mask, (120 + 40 * np.sin(turn), 215), 0.8)
        paste(frame, head[:, ::-1], mask[:, ::-1], (430 - 120 * np.cos(turn), 105), 0.65)
        paste(frame, head, mask, (430 + 120 * np.cos(turn), 255), 1.0)
        frames.append(frame)
    return frames


def paste(frame: ImageU8, image: ImageU8, mask: ImageU8, center_xy: tuple[float, float], scale: float) -> None:
    """Blend an image into a frame."""
    height, width = image.shape[:2]
    shift = np.float32(
        [[scale, 0, center_xy[0] - scale * width / 2], [0, scale, center_xy[1] - scale * height / 2]]  # type: ignore[arg-type]
    )
    size = frame.shape[1::-1]
    alpha = cv2.warpAffine(mask, shift, size)[:, :, None] / 255.0
    frame[:] = (alpha * cv2.warpAffine(image, shift, size) + (1 - alpha) * frame).astype(np.uint8)


def run(*arguments: object, cwd: Path | None = None) -> None:
    """Run an edgekit command."""
    subprocess.run([sys.executable, "-m", "edgekit.cli", *map(str, arguments)], check=True, cwd=cwd)


def in_terminal(*arguments: object, cwd: Path) -> str:
    """Return the stdout of an edgekit command in a terminal, with its colours."""
    primary, secondary = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "TERM": "xterm-256color"}
    command = [sys.executable, "-m", "edgekit.cli", *map(str, arguments)]
    with subprocess.Popen(command, cwd=cwd, stdout=secondary, stderr=subprocess.DEVNULL, env=environment):
        os.close(secondary)
        output = b""
        with suppress(OSError):  # the other side is closed
            while chunk := os.read(primary, 1 << 16):
                output += chunk
    os.close(primary)
    return output.decode().replace("\r\n", "\n")


@contextmanager
def serving(*arguments: object, cwd: Path | None = None) -> Iterator[str]:
    """Run an edgekit command that serves a page; yields the page's address."""
    command = [sys.executable, "-u", "-m", "edgekit.cli", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=cwd) as process:
        assert process.stdout is not None
        try:
            yield next(found[0] for line in process.stdout if (found := re.search(r"http://[^\s]+", line)))
        finally:
            process.kill()


def show(browser: object, address: str, size_wh: tuple[int, int], *, dark: bool, scale: float = 1) -> None:
    """Open a page at a size, in light or dark colours; a CSS pixel has `scale` pixels, on a phone two."""
    phone, (width, height) = size_wh == PHONE, size_wh
    metrics = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else scale, "mobile": phone}
    hide = {"hidden": True}
    browser.execute_cdp_cmd("Emulation.setScrollbarsHidden", hide)  # type: ignore[attr-defined]
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)  # type: ignore[attr-defined]
    feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})  # type: ignore[attr-defined]
    browser.get(address)  # type: ignore[attr-defined]


def save_screen(browser: object, path: Path) -> None:
    """Save what the browser shows."""
    save(path, Image.open(io.BytesIO(browser.get_screenshot_as_png())))  # type: ignore[attr-defined]


def save_terminal(browser: object, folder: Path, path: Path, command: str, lines: str) -> None:
    """Save the output of a command as a picture of a terminal."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(Text.assemble(("$ ", "green"), (command, "bold")), Text.from_ansi(lines.rstrip()), sep="\n")
    style = "body { margin: 0 } pre { margin: 0; padding: 14px 18px; font: 15px/1.35 'DejaVu Sans Mono' !important }"
    code = console.export_html(theme=_THEME, inline_styles=True)
    page = folder / "terminal.html"
    page.write_text(code.replace("</head>", f"<style>{style} body {{ background: #181b20 }}</style></head>"))
    show(browser, f"file://{page}", (780, 100), dark=True)
    height = browser.execute_script("return document.documentElement.scrollHeight")  # type: ignore[attr-defined]
    show(browser, f"file://{page}", (780, height), dark=True)
    save_screen(browser, path)


def save_moving(path: Path, video: Path, *, every: int, width_px: int, quality: int) -> None:
    """Save every Nth frame of a video as an animated WebP that plays at the video's speed."""
    reader = cv2.VideoCapture(str(video))
    fps, frames = reader.get(cv2.CAP_PROP_FPS), []
    while (read := reader.read())[0]:
        frames.append(read[1])
    height = round(width_px * frames[0].shape[0] / frames[0].shape[1])
    small = [cv2.resize(frame, (width_px, height), interpolation=cv2.INTER_AREA) for frame in frames[::every]]
    first, *rest = [Image.fromarray(frame[:, :, ::-1]) for frame in small]
    options = {"save_all": True, "append_images": rest, "duration": round(1000 * every / fps), "loop": 0}
    first.save(path, quality=quality, method=4, minimize_size=True, **options)


def save(path: Path, image: Image.Image) -> None:
    """Save a picture as WebP: with or without loss, whichever is smaller."""
    encoded = []
    for options in ({"quality": 82}, {"lossless": True}):
        file = io.BytesIO()
        image.convert("RGB").save(file, "WEBP", method=6, **options)
        encoded.append(file.getvalue())
    path.write_bytes(min(encoded, key=len))


def write_video(path: Path, frames: list[ImageU8]) -> None:
    """Write a video of 25 frames per second."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, frames[0].shape[1::-1])
    for frame in frames:
        writer.write(frame)
    writer.release()


PICTURES: dict[str, Callable[[argparse.Namespace, Path], None]] = {
    "demo": make_demo,
    "tracking": make_tracking,
    "web": make_web,
    "teach": make_teach,
    "label": make_label,
    "report": make_report,
    "comparison": make_comparison,
    "doctor": make_doctor,
    "parts": make_parts,
    "curves": make_curves,
}
# The option that gives a picture's data.
NEEDS = {"comparison": "fer2013", "curves": "fer2013"}


def main() -> None:
    """Make all pictures, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *PICTURES], help=", ".join(PICTURES))
    parser.add_argument("--detector-model", type=Path, help="YuNet's file; default: downloaded once")
    parser.add_argument(
        "--fer2013", type=lambda text: Path(text).absolute(), help="FER-2013, for comparison and curves"
    )
    given = parser.parse_args()
    given.detector = ("--detector", given.detector_model.resolve()) if given.detector_model else ()
    OUTPUT.mkdir(exist_ok=True)
    for name in given.names or PICTURES:
        needed = NEEDS.get(name)
        if needed and getattr(given, needed) is None:
            print(f"{name}: not made, needs --{needed}")
            continue
        with tempfile.TemporaryDirectory() as folder:
            PICTURES[name](given, Path(folder))
    for path in sorted(OUTPUT.iterdir()):
        print(f"{path.stat().st_size / 1000:7.0f} kB  {path.name}")


if __name__ == "__main__":
    main()
