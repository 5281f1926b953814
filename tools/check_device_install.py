"""Check an environment with edgekit-pi[device]: the command `edgekit` works, and no training library is installed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

FORBIDDEN = ("torch", "onnx", "lightning_fabric", "matplotlib", "h5py", "safetensors")
TOP_LEVEL_NAMES = ("models", "export", "device", "tests", "benchmarks", "tools")


def main() -> int:
    """Print the faults and return 0 if there are none."""
    faults = [f"'{name}' was installed with edgekit-pi[device]" for name in FORBIDDEN if importlib.util.find_spec(name)]
    faults += [
        f"a top-level '{name}' was installed"
        for name in TOP_LEVEL_NAMES
        if (Path(sys.prefix) / "lib" / f"python3.{sys.version_info.minor}" / "site-packages" / name).exists()
    ]
    edgekit = Path(sys.executable).with_name("edgekit")
    done = subprocess.run([edgekit, "inspect", "default", "--json"], cwd="/", capture_output=True, text=True)
    if done.returncode != 0:
        faults.append(f"'edgekit inspect default' failed: {done.stderr.strip()}")
    for fault in faults:
        print(f"FAILED: {fault}")
    if not faults:
        version = importlib.metadata.version("edgekit-pi")
        print(f"edgekit-pi {version} with [device] on Python {sys.version.split()[0]}: ok")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
