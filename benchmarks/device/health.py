"""CPU time of one health sample of a run, child processes included.

    python benchmarks/device/health.py --fake-firmware

Prints a JSON document with the mean CPU time per sample, and the percentage of a core that sampling takes in a run.
With `--fake-firmware` a shell script replaces `vcgencmd`: the time of the firmware itself is missing, but the cost of
starting a process is that on a Raspberry Pi.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path

import click

from edgekit.boards import read_board
from edgekit.device.health.sampler import FIRMWARE_EVERY, PERIOD_S, HealthSampler

_SCRIPT = '#!/bin/sh\n[ "$1" = get_throttled ] && echo throttled=0x0 || echo "frequency(45)=1400000000"\n'


def cpu_s() -> float:
    """Return the CPU time of this process and its ended children, in seconds."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@click.command()
@click.option("--fake-firmware", is_flag=True, help="Use a script as vcgencmd.")
@click.option(
    "--samples", default=100, show_default=True, type=click.IntRange(FIRMWARE_EVERY), help="Number of samples."
)
@click.option("--period", "period_s", default=0.1, show_default=True, help="Seconds between samples.")
def main(fake_firmware: bool, samples: int, period_s: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        if fake_firmware:
            tool = Path(folder) / "vcgencmd"
            tool.write_text(_SCRIPT)
            tool.chmod(0o755)
            os.environ["PATH"] = f"{folder}:{os.environ['PATH']}"
        sampler = HealthSampler(Path(folder), print, period_s=period_s)
        started_s = cpu_s()
        with sampler:
            while sampler.summary.samples < samples:
                time.sleep(period_s)
        mean_ms = (cpu_s() - started_s) / sampler.summary.samples * 1e3
    document = {
        "board": read_board().model,
        "samples": sampler.summary.samples,
        "firmware": fake_firmware,
        "cpu_ms": round(mean_ms, 3),
        "percent_of_a_core": round(mean_ms / (PERIOD_S * 1e3) * 100, 3),
    }
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
