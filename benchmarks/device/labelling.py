"""Time of one decision on the page of `edgekit data label` among 500 crops, over HTTP.

python -m benchmarks.device.labelling
"""

from __future__ import annotations

import http.client
import json
import tempfile
import time
import warnings
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np

from edgekit.device.label import LabelPage, LabelStore

_CROPS = 500
_DECISIONS = 100


def main() -> None:
    """Print the median and the 95th percentile of the time per decision, in milliseconds."""
    with tempfile.TemporaryDirectory() as folder:
        names = _collect(Path(folder))
        with LabelPage(LabelStore(Path(folder)), "127.0.0.1:0", None, warnings.warn) as page:
            connection = http.client.HTTPConnection(urlsplit(page.url).netloc)
            times_ms = sorted(_decide(connection, name) for name in names[:_DECISIONS])
            connection.close()
    print(f"{_DECISIONS} decisions among {_CROPS} crops: median {times_ms[_DECISIONS // 2]:.1f} ms, "
          f"95 % within {times_ms[_DECISIONS * 95 // 100]:.1f} ms")  # fmt: skip


def _collect(folder: Path) -> list[str]:
    generator = np.random.default_rng(0)
    (folder / "crops").mkdir()
    names = [f"run-{index:05}.png" for index in range(_CROPS)]
    lines = []
    for name in names:
        cv2.imwrite(str(folder / "crops" / name), generator.integers(0, 256, (128, 128, 3), np.uint8))
        yes = float(generator.uniform())
        lines.append(json.dumps({"file": f"crops/{name}", "probabilities": {"yes": yes, "no": 1 - yes}}) + "\n")
    (folder / "crops.jsonl").write_text("".join(lines))
    return names


def _decide(connection: http.client.HTTPConnection, name: str) -> float:
    body = json.dumps({"files": [name], "label": "yes"})
    start_s = time.perf_counter()
    connection.request("POST", "/api/decide", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    response.read()
    assert response.status == 200
    return 1000 * (time.perf_counter() - start_s)


if __name__ == "__main__":
    main()
