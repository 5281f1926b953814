"""Time until `edgekit bench --host` measures on the board: first run, and later runs when nothing has changed.

    python benchmarks/remote/remote_overhead.py --host pi@raspberrypi.local

Unknown options are passed to `edgekit bench`. The time includes connecting, checking what is installed, starting
edgekit and a measuring process, and its warm-up, up to the first counted iteration (`overhead_s` in the document).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

QUICK = ("--seconds", "0.01", "--processes", "1", "--threads", "1", "--cool-down", "0", "--allow-throttled")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="runs after the first")
    parser.add_argument("--model", default="default", help="model to measure; its warm-up is included")
    chosen, more = parser.parse_known_args()
    taken = [run(chosen.model, more) for _ in range(1 + chosen.runs)]
    sent, first_s = taken[0]
    print(f"first run: {first_s:.2f} s until the measurement, {sent:,} bytes sent")
    later_s = sorted(seconds for _, seconds in taken[1:])
    print(
        f"the next {chosen.runs}: median {statistics.median(later_s):.2f} s, {later_s[0]:.2f} to {later_s[-1]:.2f} s, "
        f"{sum(sent for sent, _ in taken[1:]):,} bytes sent"
    )


def run(model: str, more: list[str]) -> tuple[int, float]:
    command = [sys.executable, "-m", "edgekit.cli", "bench", model, *QUICK, *more, "--json", "-q"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    (host,) = json.loads(done.stdout)["hosts"]
    return host["sent_bytes"], host["overhead_s"]


if __name__ == "__main__":
    main()
