"""`edgekit cameras`: the cameras of this machine, their modes, and the programs that use them."""

from __future__ import annotations

from typing import Any

import click

from edgekit.cli.command import Command
from edgekit.cli.output import Output


@click.command("cameras", cls=Command, short_help="List the cameras, their modes, and the programs that use them.")
def command(out: Output) -> None:
    """List the cameras of this machine, their values for `run --camera`, their modes, and the programs that use them.

    A camera that another program uses is not opened; the listing names that program.

    \b
    Examples:
      edgekit cameras
      edgekit cameras --json | jq '.cameras[].name'
    """
    from edgekit.device.sources.camera_discovery import list_cameras

    found = list_cameras()
    for camera in found.cameras:
        out.say(f"{camera.name}  {camera.model}" + (f"  BLOCKED: {camera.blocked}" if camera.blocked else ""))
        for mode in camera.modes:
            out.say(f"  {_mode_line(mode)}")
    for obstacle in found.obstacles:
        out.say(f"obstacle: {obstacle}")
    if not found.cameras:
        out.say("no camera found: connect one, or run without a camera: edgekit run --source demo")
    out.result({"cameras": [camera.as_document() for camera in found.cameras], "obstacles": list(found.obstacles)})


def _mode_line(mode: dict[str, Any]) -> str:
    width, height = mode["size_wh"]
    rates = mode["fps"] if isinstance(mode["fps"], list) else [mode["fps"]] if mode["fps"] else []
    fps = f"  {', '.join(f'{rate:g}' for rate in rates)} fps" if rates else ""
    number = f"mode {mode['sensor_mode']}: " if "sensor_mode" in mode else ""
    return f"{number}{mode['format']} {width}x{height}{fps}"
