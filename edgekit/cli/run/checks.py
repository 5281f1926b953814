"""Checks of the options of `edgekit run`, without slow imports, also for commands that make a service of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import click

from edgekit.cli.config import command_named, reset_superseded
from edgekit.cli.run.detection_options import DetectionOptions, check_detection_options
from edgekit.cli.run.input_options import ALTERNATIVES, InputOptions, check_input_options
from edgekit.cli.run.output_checks import check_outputs
from edgekit.cli.run.output_options import Outputs
from edgekit.errors import InputError

_Group = TypeVar("_Group")


def check_run(values: Mapping[str, Any]) -> None:
    """Check the values of all options, given by parameter.

    Raises:
        click.UsageError: Options exclude each other, or an option has no effect without another one.
    """
    source_uri = values["source_uri"]
    check_input_options(_group(InputOptions, values), source_uri, values["camera"])
    check_outputs(_group(Outputs, values), source_uri, values["as_json"])
    check_detection_options(_group(DetectionOptions, values), values["detector_name"], values["detector_size"])


def checked_values(options: Sequence[str]) -> dict[str, Any]:
    """Return the values of `options`, words of a command line of `edgekit run`, by parameter.

    Raises:
        InputError: The file of --config cannot be used.
        click.UsageError: An option is not valid, or the options do not fit together.
    """
    with command_named("run").make_context("edgekit run", list(options)) as context:
        reset_superseded(context, ALTERNATIVES)
        check_run(context.params)
        return context.params


def checked_settings(config: Path) -> dict[str, Any]:
    """Return the values of the options of `edgekit run` with a settings file, by parameter.

    Raises:
        InputError: The settings cannot be used, or do not fit together.
    """
    try:
        return checked_values([f"--config={config}"])
    except click.UsageError as error:
        raise InputError(f"settings '{config}': {error.message}") from error


def _group(kind: type[_Group], values: Mapping[str, Any]) -> _Group:
    return kind(**{field.name: values[field.name] for field in fields(kind)})  # type: ignore[arg-type]
