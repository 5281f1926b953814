"""Prints the oldest supported version of each dependency of the device, as requirements for pip.

python tools/oldest_requirements.py > requirements.txt
"""

from __future__ import annotations

import configparser
import re
from pathlib import Path

_EXTRAS = ("device", "mqtt", "ncnn", "preview")
# What the tests of device/ need beside it: `onnx` makes their models. ncnn depends on `opencv-python`, whose files
# would replace those of the headless one: both have one version.
_OF_TESTS = {
    "window": ("opencv-python",),
    "export": ("onnx",),
    "dev": ("hypothesis", "prometheus-client", "pytest", "pytest-randomly", "pytest-xdist", "selenium", "setuptools"),
}


def requirements() -> list[str]:
    """Return a line NAME==VERSION.* for each lower bound in setup.cfg; the tests' own tools keep their ranges."""
    config = configparser.ConfigParser()
    config.read(Path(__file__).parents[1] / "setup.cfg")
    extras = config["options.extras_require"]
    lines = config["options"]["install_requires"].split("\n")
    lines += [line for name in _EXTRAS for line in extras[name].split("\n")]
    found = [re.sub(r">=([^,]+).*", r"==\1.*", line) for line in lines if ">=" in line]
    for extra, names in _OF_TESTS.items():
        for line in extras[extra].split("\n"):
            if re.split(r"[<>=!]", line)[0] in names:
                found.append(line if extra == "dev" else re.sub(r">=([^,]+).*", r"==\1.*", line))
    # No extra lists it: it comes with matplotlib, and tests make image files with it.
    return [*found, "pillow"]


if __name__ == "__main__":
    print("\n".join(requirements()))
