"""Checks of the libraries that a run needs, each imported in a process of its own, which may crash; the detector."""

from __future__ import annotations

import re
import signal
from subprocess import CompletedProcess

from edgekit.doctor.probe import Finding, Probe
from edgekit.downloads import YUNET
from edgekit.install_hint import ONNXRUNTIME, from_debian, install_command, other_onnxruntime_command

# Where Raspberry Pi OS installs it; only an environment with the system's packages finds it there.
_PICAMERA2 = "usr/lib/python3/dist-packages/picamera2"
# Text of a library that a run needs and that is missing.
NOT_INSTALLED = "not installed"
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
    if "No module named 'numpy'" in done.stderr:
        return Finding("numpy", "fault", NOT_INSTALLED, install_command("device"))
    if done.returncode:
        return Finding("numpy", "fault", _failure("numpy", done), _reinstall("numpy", "numpy"))
    return Finding("numpy", "ok", _versions(done).get("numpy", "unknown version"))


def onnxruntime(probe: Probe) -> Finding:
    """Check that onnxruntime can be imported; a crash by SIGILL is reported with the onnxruntime version to exclude."""
    done = probe.imported("onnxruntime", "onnxruntime")
    version = _versions(done).get("onnxruntime", "unknown version")
    if done.returncode == -signal.SIGILL:
        text = f"{version} crashes with an illegal instruction: it was built for another processor"
        return Finding("onnxruntime", "fault", text, other_onnxruntime_command(_requirement_without(version)))
    if "No module named 'onnxruntime'" in done.stderr:
        return Finding("onnxruntime", "fault", NOT_INSTALLED, install_command("device"))
    if done.returncode:
        return Finding("onnxruntime", "fault", _failure(version, done), _reinstall("onnxruntime", ONNXRUNTIME))
    if version in _KNOWN_BAD:
        text = f"{version} can be imported, but {_KNOWN_BAD[version]}"
        return Finding("onnxruntime", "warning", text, other_onnxruntime_command(ONNXRUNTIME))
    return Finding("onnxruntime", "ok", version)


def opencv(probe: Probe) -> Finding:
    """Check that exactly one OpenCV is installed, that it is version 4, and on a Raspberry Pi that it is headless."""
    done = probe.imported("cv2", *_OPENCV)
    versions = _versions(done)
    names = " ".join(versions)  # empty for the system's OpenCV
    replace_by_headless = _HEADLESS.format(names=names)
    if len(versions) > 1:
        text = f"{' and '.join(versions)} overwrite each other's files"
        return Finding("opencv", "fault", text, replace_by_headless)
    if "No module named 'cv2'" in done.stderr:
        return Finding("opencv", "fault", NOT_INSTALLED, install_command("device"))
    if done.returncode:
        text = _failure(names or "the system's OpenCV", done)
        if "libGL" in done.stderr:
            text = "a build with windows, on a system without libGL"
        # Without `versions` it is the system's OpenCV, which pip cannot uninstall.
        cure = replace_by_headless if versions else install_command("device")
        return Finding("opencv", "fault", text, cure)
    text = ", ".join(f"{name} {version}" for name, version in versions.items()) or "the system's own"
    if any(version.startswith("5.") for version in versions.values()):
        return Finding("opencv", "warning", f"{text}: has no Haar detector", "pip install 'opencv-python-headless<5'")
    # `versions` has at most one entry here.
    if versions and not names.endswith("headless") and probe.board().is_raspberry_pi:
        text = f"{text}: its Qt conflicts with picamera2's"
        return Finding("opencv", "warning", text, replace_by_headless)
    return Finding("opencv", "ok", text)


def picamera2(probe: Probe) -> Finding | None:
    """Check that picamera2 can be imported with the installed simplejpeg and numpy; None if this is no Raspberry Pi."""
    if not probe.board().is_raspberry_pi:
        return None
    done = probe.imported("picamera2", "picamera2", "simplejpeg", "numpy")
    versions = _versions(done)
    if done.returncode == 0:
        return Finding("picamera2", "ok", versions.get("picamera2", "the system's own"))
    if re.search(_OTHER_NUMPY, done.stderr):
        numpy_version = versions.get("numpy", "?")
        module = "simplejpeg" if "simplejpeg" in done.stderr else "picamera2"
        # numpy 2 is replaced; with numpy 1, the simplejpeg that pip has installed is removed.
        cure = "pip install 'numpy<2'"
        if numpy_version.startswith("1."):
            cure = "pip uninstall -y simplejpeg (the system's own fits its numpy)"
        return Finding("picamera2", "fault", f"{module} was built for another numpy than {numpy_version}", cure)
    if re.search(r"No module named '(picamera2|libcamera)'", done.stderr):
        return _missing_picamera2(probe)
    cure = "sudo apt install --reinstall python3-picamera2"
    return Finding("picamera2", "fault", _failure("picamera2", done), cure)


def _missing_picamera2(probe: Probe) -> Finding:
    """Return the finding for a picamera2 that is not installed, or that a virtual environment hides."""
    install = "sudo apt install python3-picamera2"
    if not probe.environment.in_venv or probe.environment.system_site_packages:  # nothing hides it
        return Finding("picamera2", "warning", "not installed", install)
    make_visible = probe.environment.system_packages_cure()
    if (probe.root / _PICAMERA2).is_dir():
        return Finding("picamera2", "warning", "installed, but hidden by this virtual environment", make_visible)
    text = "not installed, and hidden by this virtual environment"
    return Finding("picamera2", "warning", text, f"{install}; {make_visible}")


def _versions(done: CompletedProcess[str]) -> dict[str, str]:
    """Return the versions of the installed distributions by name, from the output of `import_in_child`."""
    return dict(re.findall(r"^([\w.-]+) (\S+)$", done.stdout, re.MULTILINE))


def _reinstall(name: str, requirement: str) -> str:
    """Return the command that installs a library again: Debian's package, or a wheel in this environment."""
    if from_debian():  # a copy that pip installed would hide Debian's
        return f"sudo pip uninstall --break-system-packages {name}; sudo apt install --reinstall python3-{name}"
    return f"pip install --force-reinstall {requirement if requirement == name else repr(requirement)}"


def _requirement_without(version: str) -> str:
    """Return the requirement of onnxruntime that also excludes this version, if its name is a version number."""
    # A version that ONNXRUNTIME names already is excluded there.
    if not re.fullmatch(r"\d+(\.\d+)+", version) or version in ONNXRUNTIME:
        return ONNXRUNTIME
    return f"{ONNXRUNTIME},!={version}"


def _failure(subject: str, done: CompletedProcess[str]) -> str:
    """Return how an import failed, in one line: with a signal, or with the last line of stderr."""
    if done.returncode < 0:
        try:
            name = signal.Signals(-done.returncode).name
        except ValueError:
            name = f"signal {-done.returncode}"
        return f"{subject} crashes when it is imported ({name})"
    last = (done.stderr.strip().splitlines() or ["no error message"])[-1]
    return f"{subject} cannot be imported: {last[:200]}"


def detector(probe: Probe) -> Finding:
    """Check that YuNet's file, which the first run downloads, is in the user's cache or in the deployed releases."""
    releases = [release.name for release in probe.releases().values() if (release / "detector.onnx").is_file()]
    if releases:
        return Finding("detector", "ok", f"YuNet in release {', '.join(releases)}")
    path = probe.cache_dir() / YUNET.name
    # All files of the examined machine are below `root`.
    if (probe.root / path.relative_to("/")).is_file():
        return Finding("detector", "ok", f"YuNet in '{path.parent}'")
    cure = f"run edgekit once with internet, or copy {YUNET.url} to '{path}'"
    return Finding("detector", "warning", f"'{path}' is missing: without it and without internet Haar is used", cure)
