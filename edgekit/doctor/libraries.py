"""Checks of the libraries that a run needs; each is imported in a process of its own, which may crash."""

from __future__ import annotations

import re
import signal

from edgekit.doctor.probe import Finding, Probe, ToolResult
from edgekit.install_hint import install_command

# Text of a library that a run needs and that is missing.
NOT_INSTALLED = "not installed"
# The same requirement as in setup.cfg.
_ONNXRUNTIME = "onnxruntime>=1.20,!=1.21.0,!=1.27.0"
_KNOWN_BAD = {
    "1.21.0": "crashes on some boards (microsoft/onnxruntime#23957)",
    "1.27.0": "computes wrong convolutions on processors with SME (microsoft/onnxruntime#28571)",
}
_OPENCV = ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python")
_HEADLESS = "pip uninstall -y {names} && pip install 'opencv-python-headless>=4.10,<5'"
# What numpy, or a module built against another major version of it, prints when the import fails.
_OTHER_NUMPY = r"numpy\.\w+ size changed|numpy\.core\.multiarray failed to import|_ARRAY_API not found"


def numpy(probe: Probe) -> Finding:
    """Check that numpy can be imported."""
    done = probe.imported("numpy", "numpy")
    if "No module named 'numpy'" in done.err:
        return Finding("numpy", "fault", NOT_INSTALLED, install_command("device"))
    if done.code:
        return Finding("numpy", "fault", _failure("numpy", done), "pip install --force-reinstall numpy")
    return Finding("numpy", "ok", _versions(done).get("numpy", "unknown version"))


def onnxruntime(probe: Probe) -> Finding:
    """Check that onnxruntime can be imported; a crash by SIGILL is reported with the onnxruntime version to exclude."""
    done = probe.imported("onnxruntime", "onnxruntime")
    version = _versions(done).get("onnxruntime", "unknown version")
    if done.code == -signal.SIGILL:
        text = f"{version} crashes with an illegal instruction: it was built for another processor"
        return Finding("onnxruntime", "fault", text, f"pip install '{_without(version)}'")
    if "No module named 'onnxruntime'" in done.err:
        return Finding("onnxruntime", "fault", NOT_INSTALLED, install_command("device"))
    if done.code:
        cure = f"pip install --force-reinstall '{_ONNXRUNTIME}'"
        return Finding("onnxruntime", "fault", _failure(version, done), cure)
    if version in _KNOWN_BAD:
        text = f"{version} can be imported, but {_KNOWN_BAD[version]}"
        return Finding("onnxruntime", "warning", text, f"pip install '{_ONNXRUNTIME}'")
    return Finding("onnxruntime", "ok", version)


def opencv(probe: Probe) -> Finding:
    """Check that exactly one OpenCV is installed, that it is version 4, and on a Raspberry Pi that it is headless."""
    done = probe.imported("cv2", *_OPENCV)
    versions = _versions(done)
    names = " ".join(versions)
    if len(versions) > 1:
        text = f"{' and '.join(versions)} overwrite each other's files"
        return Finding("opencv", "fault", text, _HEADLESS.format(names=names))
    if "No module named 'cv2'" in done.err:
        return Finding("opencv", "fault", NOT_INSTALLED, install_command("device"))
    if done.code:
        text = _failure(names or "the system's OpenCV", done)
        if "libGL" in done.err:
            text = "a build with windows, on a system without libGL"
        return Finding(
            "opencv", "fault", text, _HEADLESS.format(names=names) if versions else install_command("device")
        )
    text = ", ".join(f"{name} {version}" for name, version in versions.items()) or "the system's own"
    if any(version.startswith("5.") for version in versions.values()):
        return Finding("opencv", "warning", f"{text}: has no Haar detector", "pip install 'opencv-python-headless<5'")
    if versions and not names.endswith("headless") and probe.board().is_raspberry_pi:
        text = f"{text}: its Qt conflicts with picamera2's"
        return Finding("opencv", "warning", text, _HEADLESS.format(names=names))
    return Finding("opencv", "ok", text)


def picamera2(probe: Probe) -> Finding | None:
    """Check on a Raspberry Pi that picamera2 can be imported with the installed simplejpeg and numpy."""
    if not probe.board().is_raspberry_pi:
        return None
    done = probe.imported("picamera2", "picamera2", "simplejpeg", "numpy")
    versions = _versions(done)
    if done.code == 0:
        return Finding("picamera2", "ok", versions.get("picamera2", "the system's own"))
    if re.search(_OTHER_NUMPY, done.err):
        numpy_version = versions.get("numpy", "?")
        module = "simplejpeg" if "simplejpeg" in done.err else "picamera2"
        cure = "pip install 'numpy<2'"
        if numpy_version.startswith("1."):
            cure = "pip uninstall -y simplejpeg (the system's own fits its numpy)"
        return Finding("picamera2", "fault", f"{module} was built for another numpy than {numpy_version}", cure)
    if re.search(r"No module named '(picamera2|libcamera)'", done.err):
        cure = "sudo apt install python3-picamera2"
        environment = probe.environment
        if environment.in_venv and not environment.system_site_packages:
            cure += "; python3 -m venv --clear --system-site-packages ~/edgekit-env"
            return Finding("picamera2", "warning", "not installed, or hidden by this virtual environment", cure)
        return Finding("picamera2", "warning", "not installed", cure)
    cure = "sudo apt install --reinstall python3-picamera2"
    return Finding("picamera2", "fault", _failure("picamera2", done), cure)


def _versions(done: ToolResult) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+) (\S+)$", done.out, re.MULTILINE))


def _without(version: str) -> str:
    if not re.fullmatch(r"\d+(\.\d+)+", version) or version in _ONNXRUNTIME:
        return _ONNXRUNTIME
    return f"{_ONNXRUNTIME},!={version}"


def _failure(subject: str, done: ToolResult) -> str:
    if done.code < 0:
        try:
            name = signal.Signals(-done.code).name
        except ValueError:
            name = f"signal {-done.code}"
        return f"{subject} crashes when it is imported ({name})"
    last = (done.err.strip().splitlines() or ["no error message"])[-1]
    return f"{subject} cannot be imported: {last[:200]}"
