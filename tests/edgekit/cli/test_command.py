"""Commands made from data classes of options: values, dependencies, help."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, make_dataclass
from pathlib import Path
from typing import Literal

import click
import pytest
from click.testing import CliRunner, Result

from edgekit.cli.command import command
from edgekit.cli.output import Output
from edgekit.options import Options, option, parse_seconds


@dataclass(frozen=True, kw_only=True)
class CameraOptions(Options):
    title = "Camera"
    camera: str | None = option("--camera", "A camera.", bare="auto", excludes="--file", main=True)
    file: Path | None = option("--file", "A file.", main=True)
    rotate: Literal[0, 90] = option("--rotate", "Degrees.", default=0, needs="--camera")
    labels: tuple[str, ...] = option("--label", "Repeatable.", default=())
    wait_s: float = option("--wait", "A time.", default=1.0, parse=parse_seconds, default_text="1s")
    rate: float | None = option("--rate", "Frames per second.", least=1, most=60)
    shows: bool = option("--show", "A window.", default=False)
    announces: bool = option("--announce", "To others.", default=True)


@command("film", short_help="Film.", camera=CameraOptions)
def film(out: Output, camera: CameraOptions) -> None:
    """Film something."""
    click.echo(json.dumps({"json": out.as_json, **asdict(camera)}, default=str))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(film, list(arguments))


def values(*arguments: str) -> dict:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def test_a_command_gets_its_options_as_an_object() -> None:
    assert values() == {
        "json": False,
        "camera": None,
        "file": None,
        "rotate": 0,
        "labels": [],
        "wait_s": 1.0,
        "rate": None,
        "shows": False,
        "announces": True,
    }
    given = values(
        "--camera", "--rotate", "90", "--label", "a", "--label", "b", "--wait", "2min", "--rate", "5", "--json"
    )
    assert (given["camera"], given["rotate"], given["labels"], given["wait_s"]) == ("auto", 90, ["a", "b"], 120.0)
    assert (given["rate"], given["json"]) == (5.0, True)
    assert values("--no-announce")["announces"] is False


@pytest.mark.parametrize(
    "arguments",
    [
        ("--rotate", "45", "--camera"),
        ("--rate", "0"),
        ("--rate", "nan"),
        ("--rate", "fast"),
        ("--wait", "soon"),
        ("--file", ""),
        ("--camera", "--file", "x"),  # they exclude each other
        ("--rotate", "90"),  # without what it needs
        ("--unknown",),
    ],
)
def test_a_wrong_option_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2


def test_the_help_of_a_long_command_lists_the_main_options_and_help_all_all_of_them() -> None:
    text = run("--help").output
    assert "--rotate 0|90" in text
    assert "--help-all" not in text
    assert text.index("Camera:") < text.index("--json")
    more = [(f"n{index}", int, option(f"--n{index}", "A number.", default=index)) for index in range(24)]
    many = make_dataclass("Many", more, bases=(Options,), frozen=True, kw_only=True)
    long = command("long", short_help="Long.", camera=CameraOptions, many=many)(print)
    short, full = (CliRunner().invoke(long, [flag]).output for flag in ("--help", "--help-all"))
    assert ("--camera" in short, "--rotate" in short, "--help-all" in short) == (True, False, True)
    assert "--rotate" in full


def test_an_argument_and_a_required_option_become_fields_of_the_object() -> None:
    @dataclass(frozen=True)
    class Copy(Options):
        source: str
        target: Path = option("--target", "A file.", short="-t", required=True)

    @command("copy", short_help="Copy.", options=Copy)
    @click.argument("source")
    def copy(out: Output, options: Copy) -> None:
        del out
        click.echo(f"{options.source} {options.target}")

    assert CliRunner().invoke(copy, ["a", "-t", "b"]).output == "a b\n"
    assert CliRunner().invoke(copy, ["a"]).exit_code == 2
