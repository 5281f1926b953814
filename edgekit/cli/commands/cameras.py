"""`edgekit cameras`: the cameras of this machine, their modes, and what prevents their use."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from edgekit.cli.command import command as edgekit_command
from edgekit.cli.output import Output


@edgekit_command("cameras", short_help="List the cameras, their modes, and what prevents their use.")
def command(out: Output) -> None:
    """List the cameras of this machine, their values for `run --camera`, their modes, and what prevents their use.

    The modes of a USB camera are listed by `v4l2-ctl --list-formats-ext`.

    \b
    Examples:
      edgekit cameras
      edgekit cameras --json | jq '.cameras[].name'
    """
    from edgekit.device.sources.opencv import list_cameras

    found = list_cameras()
    for camera in found.cameras:
        out.say(f"{camera.name}  {camera.model}" + (f"  BLOCKED: {camera.blocked}" if camera.blocked else ""))
        for mode in camera.modes:
            out.say(f"  {_mode_line(mode)}")
        if camera.kind == "v4l2":
            out.say(f"  v4l2-ctl -d {camera.name} --list-formats-ext lists its modes")
    for obstacle in found.obstacles:
        out.say(f"obstacle: {obstacle}")
    if not found.cameras:
        out.say("no camera found: connect one, or run without a camera: edgekit run --source demo --realtime")
    out.result({"cameras": list(map(asdict, found.cameras)), "obstacles": list(found.obstacles)})


def _mode_line(mode: dict[str, Any]) -> str:
    width, height = mode["size_wh"]
    fps = f"  {mode['fps']:g} fps" if mode["fps"] else ""
    return f"mode {mode['sensor_mode']}: {mode['format']} {width}x{height}{fps}"
