"""Checks of the output options of `edgekit run`."""

from __future__ import annotations

from pathlib import Path

import click

from edgekit.cli.run.output_options import STDOUT, Outputs, allowed_commands, output_files, rotation_of
from edgekit.device.sinks.rotation import is_older_name
from edgekit.files import real_path


def check_outputs(outputs: Outputs, source: str | None, as_json: bool) -> None:
    """Check the options before anything slow is imported.

    Raises:
        click.UsageError: Two outputs have the same file or exclude each other, or an option has no effect without
            another one.
    """
    if as_json and outputs.jsonl == STDOUT:
        raise click.UsageError("--json and --jsonl - both write to stdout: give --jsonl a file, or leave --json out")
    if outputs.csv_file == STDOUT:
        raise click.UsageError("--csv takes a file: for results on stdout write --jsonl -")
    buffers = [outputs.mqtt_buffer] if outputs.mqtt is not None and outputs.mqtt_buffer is not None else []
    places = [real_path(path) for path in (*output_files(outputs), *buffers)]
    if twice := [path for path in places if places.count(path) > 1]:
        raise click.UsageError(f"'{twice[0]}' is the file of two outputs: give each its own")
    names = [getattr(outputs, name) for name in _NEEDED_OUTPUTS["rotate_"]] if rotation_of(outputs).active else []
    rotated = [real_path(Path(name)) for name in names if name not in (None, STDOUT)]
    for output in rotated:
        if clash := [path for path in places if is_older_name(path, output)]:
            raise click.UsageError(f"'{clash[0]}' is the name of an older file of '{output}': choose another name")
    original = None if source is None else real_path(Path(source))
    if original is not None and (original in places or any(is_older_name(original, output) for output in rotated)):
        raise click.UsageError(f"'{source}' is the source and would be overwritten: write to another file")
    if outputs.record is not None and source is not None:
        raise click.UsageError("--record is for a Raspberry Pi's camera: use --save, or --camera")
    if outputs.record is not None and outputs.blur_faces:
        raise click.UsageError("--record does not blur faces: leave out --record or --blur-faces")
    if outputs.collect is not None and outputs.blur_faces:
        raise click.UsageError("--collect saves faces without blur: leave out --collect or --blur-faces")
    if outputs.event_snapshots is None and (outputs.mqtt_snapshot or outputs.webhook_snapshot):
        raise click.UsageError("--mqtt-snapshot and --webhook-snapshot need --event-snapshots: give a folder")
    _check_snapshots_by_command(outputs)
    if (outputs.mqtt_cert is None) != (outputs.mqtt_key is None):
        raise click.UsageError("--mqtt-cert and --mqtt-key belong together: give both")
    _refuse_without_effect(outputs)


def _check_snapshots_by_command(outputs: Outputs) -> None:
    folder, is_allowed = outputs.command_snapshots, "snapshot" in allowed_commands(outputs)
    if is_allowed and folder is None:
        raise click.UsageError("--mqtt-commands snapshot needs a folder: give --command-snapshots")
    if outputs.mqtt_command_snapshot and not is_allowed:
        raise click.UsageError("--mqtt-command-snapshot needs --mqtt-commands snapshot: give it, or leave it out")
    if (
        folder is not None
        and outputs.event_snapshots is not None
        and real_path(folder) == real_path(outputs.event_snapshots)
    ):
        raise click.UsageError("--command-snapshots and --event-snapshots name the same folder: give each its own")


# By prefix of the parameters: the parameters of which these need at least one.
_NEEDED_OUTPUTS = {
    "rotate_": ("save", "record", "jsonl", "csv_file"),
    "rotate_keep": ("rotate_size", "rotate_age"),
    "records": ("results",),
    "disk_": ("save", "record", "jsonl", "csv_file", "collect", "event_snapshots", "command_snapshots"),
    "blur_": ("save", "web", "event_snapshots", "command_snapshots"),
    "draw_": ("save", "web", "show", "event_snapshots", "command_snapshots"),
    "collect_": ("collect",),
    "web_": ("web",),
    "mqtt_": ("mqtt",),
    "webhook_": ("webhook",),
    "event_snapshots_": ("event_snapshots",),
    "command_snapshots_": ("command_snapshots",),
    "command_": ("mqtt_commands",),
    "event_": ("mqtt", "webhook", "web", "event_snapshots"),
}


def _refuse_without_effect(outputs: Outputs) -> None:
    """Refuse options on the command line that have no effect. Options from a settings file may have no effect.

    Raises:
        click.UsageError: An option has no effect.
    """
    context = click.get_current_context(silent=True)
    if context is None:
        return
    flags = {parameter.name: parameter.opts[0] for parameter in context.command.params}
    texts = flags | {"jsonl": "--jsonl FILE", "mqtt_commands": "--mqtt-commands snapshot", "results": "--jsonl, --csv"}
    given = {name for name, value in vars(outputs).items() if value}
    if not given.isdisjoint(("jsonl", "csv_file")):
        given.add("results")
    if outputs.jsonl == STDOUT:
        given.remove("jsonl")  # stdout is not rotated
    if "snapshot" not in allowed_commands(outputs):
        given.discard("mqtt_commands")
    for name, flag in flags.items():
        if name is None or context.get_parameter_source(name) is not click.core.ParameterSource.COMMANDLINE:
            continue
        for prefix, needed in _NEEDED_OUTPUTS.items():
            if name.startswith(prefix) and given.isdisjoint(needed):
                places = ", ".join(texts[other] for other in needed)
                raise click.UsageError(f"{flag} has no effect without {places}: give one, or leave it out")
