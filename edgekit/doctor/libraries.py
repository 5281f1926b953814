"""Checks of the libraries a run needs: each is imported in a process of its own, which may die of it."""

from __future__ import annotations

import re
import signal

from edgekit.doctor.probe import Finding, Probe, ToolResult, is_raspberry_pi

# As setup.cfg has it.
_ONNXRUNTIME = "onnxruntime>=1.20,!=1.21.0"
_KNOWN_BAD = {"1.21.0": "microsoft/onnxruntime#23957"}
_OPENCV = ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python")
_HEADLESS = "pip uninstall -y {names} && pip install 'opencv-python-headless>=4.10,<5'"


def numpy(probe: Probe) -> Finding:
    """Say whether numpy loads."""
    done = probe.imported("numpy", "numpy")
    if "No module named 'numpy'" in done.err:
        return Finding("numpy", "fault", "not installed", "pip install 'edgekit[device]'")
    if done.code:
        return Finding("numpy", "fault", _failure("numpy", done), "pip install --force-reinstall numpy")
    return Finding("numpy", "ok", _versions(done).get("numpy", "version unknown"))


def onnxruntime(probe: Probe) -> Finding:
    """Say whether onnxruntime loads, and name the instruction set as the reason where it dies of it."""
    done = probe.imported("onnxruntime", "onnxruntime")
    version = _versions(done).get("onnxruntime", "of unknown version")
    if done.code == -signal.SIGILL:
        text = f"{version} dies with an illegal instruction: it was built for another processor"
        return Finding("onnxruntime", "fault", text, f"pip install '{_without(version)}'")
    if "No module named 'onnxruntime'" in done.err:
        return Finding("onnxruntime", "fault", "not installed", "pip install 'edgekit[device]'")
    if done.code:
        return Finding(
            "onnxruntime", "fault", _failure(version, done), f"pip install --force-reinstall '{_ONNXRUNTIME}'"
        )
    if version in _KNOWN_BAD:
        text = f"{version} loads, but is known to die on some boards ({_KNOWN_BAD[version]})"
        return Finding("onnxruntime", "warning", text, f"pip install '{_ONNXRUNTIME}'")
    return Finding("onnxruntime", "ok", version)


def opencv(probe: Probe) -> Finding:
    """Say which OpenCV there is: one, without windows on a board, and of version 4."""
    done = probe.imported("cv2", *_OPENCV)
    versions = _versions(done)
    names = " ".join(versions)
    if len(versions) > 1:
        text = f"{' and '.join(versions)} overwrite each other"
        return Finding("opencv", "fault", text, _HEADLESS.format(names=names))
    if done.code:
        if "No module named 'cv2'" in done.err:
            return Finding("opencv", "fault", "not installed", "pip install 'edgekit[device]'")
        cure = _HEADLESS.format(names=names) if versions else "pip install 'edgekit[device]'"
        if "libGL" in done.err:
            return Finding("opencv", "fault", "a build with windows, on a system without libGL", cure)
        return Finding("opencv", "fault", _failure(names or "the system's", done), cure)
    said = ", ".join(f"{name} {version}" for name, version in versions.items()) or "the system's own"
    if any(version.startswith("5.") for version in versions.values()):
        return Finding("opencv", "warning", f"{said}: without Haar", "pip install 'opencv-python-headless<5'")
    if versions and not names.endswith("headless") and is_raspberry_pi(probe.board()):
        return Finding("opencv", "warning", f"{said}: its Qt fights picamera2's", _HEADLESS.format(names=names))
    return Finding("opencv", "ok", said)


def picamera2(probe: Probe) -> Finding | None:
    """Say whether picamera2 loads on a Raspberry Pi, simplejpeg and numpy's binary form included."""
    if not is_raspberry_pi(probe.board()):
        return None
    done = probe.imported("picamera2", "picamera2", "simplejpeg", "numpy")
    versions = _versions(done)
    if done.code == 0:
        return Finding("picamera2", "ok", versions.get("picamera2", "the system's"))
    if re.search(r"numpy\.\w+ size changed|numpy\.core\.multiarray failed to import|_ARRAY_API not found", done.err):
        numpy_version = versions.get("numpy", "?")
        blamed = "simplejpeg" if "simplejpeg" in done.err else "it"
        text = f"{blamed} was built for another numpy than {numpy_version}"
        if numpy_version.startswith("1."):
            return Finding("picamera2", "fault", text, "pip uninstall -y simplejpeg (the system's own fits its numpy)")
        return Finding("picamera2", "fault", text, "pip install 'numpy<2'")
    if re.search(r"No module named '(picamera2|libcamera)'", done.err):
        environment = probe.environment
        hidden = environment.in_venv and not environment.system_site_packages
        cure = "sudo apt install python3-picamera2"
        if hidden:
            cure += "; python3 -m venv --clear --system-site-packages ~/edgekit-env"
        text = "invisible in this virtual environment, or not installed" if hidden else "not installed"
        return Finding("picamera2", "warning", text, cure)
    return Finding("picamera2", "fault", _failure("it", done), "sudo apt install --reinstall python3-picamera2")


def _versions(done: ToolResult) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+) (\S+)$", done.out, re.MULTILINE))


def _without(version: str) -> str:
    known = _ONNXRUNTIME
    return known if not re.fullmatch(r"\d+(\.\d+)+", version) or version in known else f"{known},!={version}"


def _failure(what: str, done: ToolResult) -> str:
    if done.code < 0:
        try:
            killed = signal.Signals(-done.code).name
        except ValueError:
            killed = f"signal {-done.code}"
        return f"{what} dies while loading ({killed})"
    last = (done.err.strip().splitlines() or ["without a word"])[-1]
    return f"{what} does not load: {last[:200]}"
