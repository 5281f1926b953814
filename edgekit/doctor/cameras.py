"""Checks of cameras: what libcamera sees, what V4L2 sees, who holds them, and who may use them."""

from __future__ import annotations

import os
import re

from edgekit.doctor.probe import Finding, Probe, is_raspberry_pi

# V4L2 nodes of a Raspberry Pi that are no cameras by themselves: codecs, image processors, raw receivers.
_NO_CAMERAS = re.compile(r"bcm2835-|unicam|pispbe|rp1-cfe|rpi-hevc|rpivid|hevc", re.IGNORECASE)
_CONFIG = ("boot/firmware/config.txt", "boot/config.txt")


def libcamera(probe: Probe) -> Finding | None:
    """Say which cameras libcamera sees on a Raspberry Pi, and where it sees none what is amiss."""
    if not is_raspberry_pi(probe.board()):
        return None
    done = probe.run("rpicam-hello", "--list-cameras") or probe.run("libcamera-hello", "--list-cameras")
    if done is None:
        return Finding("camera", "unknown", "rpicam-hello is not installed", "sudo apt install rpicam-apps-lite")
    said = done.out + done.err
    cameras = re.findall(r"^\d+ : (\S+) \[(\d+x\d+)", said, re.MULTILINE)
    if cameras:
        return Finding("camera", "ok", "libcamera sees " + ", ".join(f"{name} ({size})" for name, size in cameras))
    if "dmaHeap" in said:
        cure = "restart; if it stays, remove dtoverlay lines that change memory from /boot/firmware/config.txt"
        return Finding("camera", "warning", "libcamera finds no memory for buffers (dma-heap)", cure)
    config = next((text for name in _CONFIG if (text := probe.read(name)) is not None), "")
    if re.search(r"^\s*start_x=1", config, re.MULTILINE):
        return Finding("camera", "warning", "libcamera sees none: the old camera system is switched on",
                       "remove start_x=1 from /boot/firmware/config.txt and restart")  # fmt: skip
    if re.search(r"^\s*camera_auto_detect=0", config, re.MULTILINE):
        return Finding("camera", "warning", "libcamera sees none, and looking for them is switched off",
                       "set camera_auto_detect=1 in /boot/firmware/config.txt and restart")  # fmt: skip
    return Finding(
        "camera",
        "warning",
        "libcamera sees none",
        "switch it off and look at the ribbon cable, both ends; then restart",
    )


def v4l2(probe: Probe) -> Finding:
    """Say which V4L2 cameras there are: USB ones, and on a PC all."""
    nodes = []
    for folder in sorted((probe.root / "sys/class/video4linux").glob("video*")):
        base = f"sys/class/video4linux/{folder.name}"
        name = probe.line(f"{base}/name") or "unnamed"
        if not _NO_CAMERAS.search(name) and (probe.line(f"{base}/index") or "0") == "0":
            nodes.append(f"{name} (/dev/{folder.name})")
    if nodes:
        return Finding("v4l2", "ok", ", ".join(nodes))
    return Finding("v4l2", "ok", "no USB camera" if is_raspberry_pi(probe.board()) else "no camera")


def holders(probe: Probe) -> Finding | None:
    """Say which programs hold a camera now."""
    found: dict[str, set[str]] = {}
    for link in (probe.root / "proc").glob("[0-9]*/fd/*"):
        try:
            target = os.readlink(link)  # noqa: PTH115 - a path of that machine, not of ours
        except OSError:
            continue
        if re.fullmatch(r"/dev/(video|media)\d+", target):
            pid = link.parts[-3]
            probe.seen[f"proc/{pid}/fd/{link.name} -> {target}"] = ""
            found.setdefault(pid, set()).add(target)
    # Sound servers look at every camera once and keep the door open; they do not take pictures.
    busy = {pid: nodes for pid, nodes in found.items() if any("video" in node for node in nodes)}
    if not busy:
        return None
    who = ", ".join(
        f"{probe.line(f'proc/{pid}/comm') or 'a program'} (pid {pid}) {' '.join(sorted(nodes))}"
        for pid, nodes in sorted(busy.items(), key=lambda item: int(item[0]))
    )
    return Finding(
        "camera in use", "warning", f"held by {who}", f"stop it if edgekit shall have it: kill {' '.join(busy)}"
    )


def groups(probe: Probe) -> Finding:
    """Say whether the user may use cameras."""
    done = probe.run("id", "-Gn")
    member = set(done.out.split()) if done and done.code == 0 else None
    if member is None:
        return Finding("groups", "unknown", "id does not tell")
    if "video" in member or "root" in member:
        return Finding("groups", "ok", "may use cameras")
    return Finding(
        "groups", "warning", "your user is not in the group 'video'", "sudo usermod -aG video $USER, then log in again"
    )
