"""Program that `benchmarks/cores/count_start.py` measures: `edgekit run` until its first record, or the imports that no
start can avoid.

    python first_result.py RESULTS ARGUMENT ...    # edgekit run ARGUMENT ... --jsonl RESULTS, ends at the first record
    python first_result.py                         # imports numpy, OpenCV and onnxruntime
"""

from __future__ import annotations

import os
import sys


def main(results: str, *arguments: str) -> None:
    """Run until `results` is opened, which is when the first record is written."""

    def stop(event: str, values: tuple[object, ...]) -> None:
        if event == "open" and values[0] == results:
            os._exit(0)

    sys.addaudithook(stop)
    sys.argv = ["edgekit", "run", *arguments, "--jsonl", results]
    from edgekit.cli import main

    main()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(*sys.argv[1:])
    else:
        import cv2  # noqa: F401
        import numpy  # noqa: F401
        import onnxruntime  # noqa: F401

        os._exit(0)
