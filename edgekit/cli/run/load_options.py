"""The options of `edgekit run` that keep it up."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import click

from edgekit.cli.options import NumberRange

_Function = TypeVar("_Function", bound=Callable[..., None])


def load_options(function: _Function) -> _Function:
    """Add --max-temperature."""
    return click.option(
        "--max-temperature",
        "max_temperature_c",
        type=NumberRange(20, 150),
        metavar="C",
        help="Do less work from so many °C on; default: 75 on a Raspberry Pi.",
    )(function)
