"""Options of `edgekit run` for threads and load shedding."""

from __future__ import annotations

from dataclasses import dataclass

import click

from edgekit.cli.options import NumberRange, grouped_options, threads_option


@dataclass(frozen=True)
class LoadOptions:
    """Values of the options for threads and load shedding; each field has the name of its option's parameter."""

    threads: int | None
    single_thread: bool
    max_temperature_c: float | None


_OPTIONS = (
    threads_option,
    click.option(
        "--single-thread/--threaded",
        default=False,
        help="Run all stages in one thread, for debugging; results for files do not change.",
    ),
    click.option(
        "--max-temperature",
        "max_temperature_c",
        type=NumberRange(20, 150),
        metavar="C",
        help="Temperature in °C at which the load is reduced. Default: 75 on a Raspberry Pi.",
    ),
)


# Adds these options to a command, which gets their values as the parameter `load`.
add_load_options = grouped_options("load", LoadOptions, _OPTIONS)
