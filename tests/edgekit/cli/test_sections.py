"""Options in titled sections of a command's help."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click
from click.testing import CliRunner

from edgekit.cli.sections import SectionedCommand, section


def titles(text: str) -> list[str]:
    """Return the section titles of a help text."""
    return [line[:-1] for line in text.splitlines() if re.fullmatch(r"[A-Z][A-Za-z ]+:", line)]


def several(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--second")(click.option("--third")(function))


def test_sections_stand_in_the_order_of_their_first_option() -> None:
    @click.command(cls=SectionedCommand)
    @click.option("--plain")
    @section("Near", click.option("--first"), several)
    @section("Far", click.option("--last"))
    def command(**values: str) -> None: ...

    text = CliRunner().invoke(command, ["--help"]).output
    assert titles(text) == ["Near", "Far", "Other options"]
    assert re.findall(r"--[a-z]+", text) == ["--first", "--second", "--third", "--last", "--plain", "--help"]


def test_an_inner_section_wins() -> None:
    @click.command(cls=SectionedCommand)
    @section("Outer", section("Inner", click.option("--inner")), click.option("--outer"))
    def command(**values: str) -> None: ...

    text = CliRunner().invoke(command, ["--help"]).output
    assert titles(text) == ["Inner", "Outer", "Other options"]


def test_values_arrive_as_without_sections() -> None:
    @click.command(cls=SectionedCommand)
    @section("Numbers", click.option("--number", type=int, default=3))
    def command(number: int) -> None:
        click.echo(number + 1)

    assert CliRunner().invoke(command, ["--number", "4"]).output == "5\n"
    assert CliRunner().invoke(command).output == "4\n"
