"""Time that the page of `edgekit data label` takes for 500 crops of tracks, in a browser driven by the keyboard.

python -m benchmarks.device.labelling

Chromium without a window shows the page; a driver presses the key of a class for each track. Clocks in the page
measure from the key until the pixels of the next track are on the screen, and until the server has moved the files and
responded. The time that the driver needs between two keys is not part of either.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from edgekit.device.label.app import label_page
from edgekit.device.label.store import LabelStore
from tests.browser import open_browser, wait

_CROPS = 500
_LARGEST_TRACK = 7
_CLASSES = ("angry", "happy", "neutral", "sad", "surprise")
# This listener runs after the page's own, which shows the next track and sends the decision.
_CLOCKS = """
window.times = [];
const isLoaded = (image) => image.complete && image.naturalWidth;
const allLoaded = () => [...document.querySelectorAll("#crops img")].every(isLoaded);
const drawn = (done) => requestAnimationFrame(() => allLoaded() ? requestAnimationFrame(done) : drawn(done));
addEventListener("keydown", async (event) => {
  const elapsed = () => performance.now() - event.timeStamp;
  times.push(await Promise.all([new Promise(drawn).then(elapsed), sending.then(elapsed)]));
});
"""


def main() -> None:
    """Print the median and the 95th percentile of both times, in milliseconds, and their sums for all crops."""
    from selenium.webdriver.common.action_chains import ActionChains

    with tempfile.TemporaryDirectory() as name:
        tracks = _collect(Path(name) / "collected")
        store = LabelStore(Path(name) / "collected")
        with (
            label_page(store, "127.0.0.1:0", None) as page,
            open_browser(Path(name) / "profile") as browser,
        ):
            browser.get(page.url)
            wait(browser, f"document.body.dataset.waiting === '{_CROPS}'")
            browser.execute_script(_CLOCKS)
            start_s = time.perf_counter()
            for index in range(tracks):
                ActionChains(browser).send_keys(str(1 + index % len(_CLASSES))).perform()
                wait(browser, f"times.length === {index + 1}")
            wall_s = time.perf_counter() - start_s
            shown_ms, stored_ms = np.array(browser.execute_script("return times")).T
        labelled = len(list((Path(name) / "collected/labelled").rglob("*.png")))
    print(f"{labelled} crops in {tracks} decisions")
    for what, times_ms in (("next track on the screen", shown_ms), ("files moved and answered", stored_ms)):
        median, late = np.percentile(times_ms, (50, 95))
        print(f"{what}: median {median:.1f} ms, 95 % within {late:.1f} ms, all decisions {times_ms.sum() / 1000:.1f} s")
    print(f"with the driver of the browser: {wall_s:.1f} s")


def _collect(folder: Path) -> int:
    """Write crops of tracks of one to seven crops as `edgekit run --collect` does, and return the number of tracks."""
    generator = np.random.default_rng(0)
    (folder / "crops").mkdir(parents=True)
    sizes: list[int] = []
    while (left := _CROPS - sum(sizes)) > 0:
        sizes.append(min(left, 1 + len(sizes) % _LARGEST_TRACK))
    lines = []
    for track, size in enumerate(sizes):
        for index in range(size):
            file = f"crops/run-{track:03}-{index}.png"
            cv2.imwrite(str(folder / file), generator.integers(0, 256, (128, 128, 3), np.uint8))
            probabilities = dict(zip(_CLASSES, generator.dirichlet(np.ones(len(_CLASSES))).tolist(), strict=True))
            lines.append(json.dumps({"file": file, "probabilities": probabilities, "track": f"run-{track}"}) + "\n")
    (folder / "crops.jsonl").write_text("".join(lines))
    return len(sizes)


if __name__ == "__main__":
    main()
