"""Checks of cameras: those of libcamera and V4L2, the programs that use them, and the user's permissions."""

from __future__ import annotations

import os
import re

from edgekit.doctor.probe import Finding, Probe

# V4L2 devices of a Raspberry Pi that are not cameras: codecs, image processors, raw receivers.
_NO_CAMERAS = re.compile(r"bcm2835-|unicam|pispbe|rp1-cfe|rpi-hevc|rpivid|hevc", re.IGNORECASE)


def libcamera(probe: Probe) -> Finding | None:
    """Check that libcamera finds a camera; None on a machine that is no Raspberry Pi."""
    if not probe.board().is_raspberry_pi:
        return None
    # Older systems have it under its second name.
    done = probe.run("rpicam-hello", "--list-cameras") or probe.run("libcamera-hello", "--list-cameras")
    if done is None:
        missing = "rpicam-hello is not installed or does not respond"
        return Finding("camera", "unknown", missing, "sudo apt install rpicam-apps-lite; if it is installed, restart")
    output = done.stdout + done.stderr
    cameras = re.findall(r"^\d+ : (\S+) \[(\d+x\d+)", output, re.MULTILINE)
    if cameras:
        return Finding("camera", "ok", "libcamera finds " + ", ".join(f"{name} ({size})" for name, size in cameras))
    if "dmaHeap" in output:
        cure = "restart; if it persists, remove dtoverlay lines that change memory from /boot/firmware/config.txt"
        return Finding("camera", "warning", "libcamera cannot allocate buffers (dma-heap)", cure)
    config = probe.read("boot/firmware/config.txt") or probe.read("boot/config.txt") or ""
    text, cure = "libcamera finds no camera", "switch the board off and check the ribbon cable, both ends; then restart"
    if re.search(r"^\s*start_x=1", config, re.MULTILINE):
        text = "libcamera finds no camera: the legacy camera system is enabled"
        cure = "remove start_x=1 from /boot/firmware/config.txt and restart"
    elif re.search(r"^\s*camera_auto_detect=0", config, re.MULTILINE):
        text = "libcamera finds no camera: detection of cameras is disabled"
        cure = "set camera_auto_detect=1 in /boot/firmware/config.txt and restart"
    return Finding("camera", "warning", text, cure)


def v4l2(probe: Probe) -> Finding:
    """List the V4L2 cameras; on a Raspberry Pi these are USB cameras."""
    cameras = []
    for folder in sorted((probe.root / "sys/class/video4linux").glob("video*")):
        base = f"sys/class/video4linux/{folder.name}"
        name = probe.line(f"{base}/name") or "unnamed"
        # Of the devices of one camera, the one with index 0 captures images.
        if not _NO_CAMERAS.search(name) and (probe.line(f"{base}/index") or "0") == "0":
            cameras.append(f"{name} (/dev/{folder.name})")
    none = "no USB camera" if probe.board().is_raspberry_pi else "no camera"
    return Finding("v4l2", "ok", ", ".join(cameras) or none)


def holders(probe: Probe) -> Finding | None:
    """List the programs that use a camera now; None if there are none."""
    devices_of: dict[int, set[str]] = {}  # by process id
    for link in (probe.root / "proc").glob("[0-9]*/fd/*"):
        try:
            target = os.readlink(link)  # noqa: PTH115 - a path on the examined machine, not below `root`
        except OSError:
            continue
        if re.fullmatch(r"/dev/(video|media)\d+", target):
            pid = int(link.parts[-3])  # proc/PID/fd/NUMBER
            devices_of.setdefault(pid, set()).add(target)
    # Sound servers keep /dev/media* open, but capture no images.
    pids = sorted(pid for pid, devices in devices_of.items() if any("video" in device for device in devices))
    if not pids:
        return None
    programs = []
    for pid in pids:
        name = probe.line(f"proc/{pid}/comm") or "a program"
        programs.append(f"{name} (pid {pid}) {' '.join(sorted(devices_of[pid]))}")
    cure = f"stop it if edgekit should use the camera: kill {' '.join(map(str, pids))}"
    return Finding("camera in use", "warning", f"used by {', '.join(programs)}", cure)


def groups(probe: Probe) -> Finding:
    """Check that the user may open cameras."""
    done = probe.run("id", "-Gn")
    if done is None or done.returncode:
        return Finding("groups", "unknown", "the command 'id' failed")
    if {"video", "root"} & set(done.stdout.split()):
        return Finding("groups", "ok", "your user may open cameras")
    cure = "sudo usermod -aG video $USER, then log in again"
    return Finding("groups", "warning", "your user is not in the group 'video'", cure)
