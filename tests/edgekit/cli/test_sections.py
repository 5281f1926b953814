"""Options in titled sections of a command's help."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click
import pytest
from click.testing import CliRunner

from edgekit.cli.commands.bench import command as bench_command
from edgekit.cli.commands.export import command as export_command
from edgekit.cli.commands.run import command as run_command
from edgekit.cli.commands.train import command as train_command
from edgekit.cli.sections import SectionedCommand, section
from tests.docs.pages import ROOT


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


def test_arguments_are_not_listed_as_options() -> None:
    @click.command(cls=SectionedCommand)
    @click.argument("file")
    @section("Near", click.option("--first"))
    def command(**values: str) -> None: ...

    text = CliRunner().invoke(command, ["--help"]).output
    assert not re.search("^ +FILE", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (bench_command, ["Measurement", "Formats", "Frames", "Conditions", "Report", "Boards"]),
        (export_command, ["File", "Rewrites", "Labels", "Quantisation", "Evaluation"]),
        (
            train_command,
            [
                "Model",
                "Data",
                "Class shares",
                "Output",
                "Classes",
                "Folds",
                "Calibration",
                "CLIP and prompts",
                "Training",
                "Machine",
            ],
        ),
    ],
)
def test_long_help_has_sections(command: click.Command, expected: list[str]) -> None:
    text = CliRunner().invoke(command, ["--help"]).output
    found = [title for title in titles(text) if title != "Examples"]
    assert found == [*expected, "Other options"]


def test_values_arrive_as_without_sections() -> None:
    @click.command(cls=SectionedCommand)
    @section("Numbers", click.option("--number", type=int, default=3))
    def command(number: int) -> None:
        click.echo(number + 1)

    assert CliRunner().invoke(command, ["--number", "4"]).output == "5\n"
    assert CliRunner().invoke(command).output == "4\n"


def test_help_of_run_has_its_sections_in_the_same_columns() -> None:
    text = CliRunner().invoke(run_command, ["--help"]).output
    expected = ["Source", "Camera", "Faces", "Results", "Collecting", "Web page", "MQTT", "Events"]
    expected += ["Speed and load", "Settings"]
    assert titles(text) == [*expected, "Other options"]
    columns = {len(match[0]) for line in text.splitlines() if (match := re.match(r"  -\S.*?  +(?=\S)", line))}
    assert columns == {34}


def test_values_in_the_help_have_names_and_not_the_type_names_of_click() -> None:
    page = (ROOT / "docs/reference/commands.md").read_text()
    assert re.findall(r"--[\w-]+ \w+ RANGE", page) == []
