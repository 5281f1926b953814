"""Options declared in data classes: bounds, arguments of Python functions, sizes and times."""

from __future__ import annotations

import inspect
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgekit.errors import InputError
from edgekit.options import Options, option, parse_bytes, parse_seconds, takes
from tests.docs.pages import ROOT


@dataclass(frozen=True, kw_only=True)
class DoorOptions(Options):
    url: str = option("--url", "Address.")
    tries: int = option("--tries", "Attempts.", default=3, least=1, most=5)


@takes(DoorOptions)
def call(options: DoorOptions) -> int:
    """Ring."""
    return options.tries


def test_a_function_takes_the_fields_of_its_options() -> None:
    assert (call(url="x"), call(url="x", tries=5)) == (3, 5)
    assert list(inspect.signature(call).parameters) == ["url", "tries"]
    assert call.__doc__ == "Ring."


@pytest.mark.parametrize(
    "arguments",
    [{"urll": "x"}, {"url": "x", "tries": 6}, {"url": "x", "tries": 0}, {"tries": math.nan}],
)
def test_a_wrong_argument_is_an_input_error(arguments: dict) -> None:
    with pytest.raises(InputError):
        call(**arguments)


def test_a_misspelled_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(InputError) as error:
        call(urll="x")
    assert "'url'" in str(error.value)


def test_positional_arguments_of_keyword_options_are_input_errors() -> None:
    with pytest.raises(InputError):
        call("x")


@pytest.mark.slow
def test_mypy_finds_a_misspelled_argument(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text('import edgekit\n\nedgekit.stream(source="demo")\nedgekit.stream(sources="demo")\n')
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path / "cache"), str(script)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert [line for line in done.stdout.splitlines() if line.startswith(str(script))] != []
    assert "script.py:4" in done.stdout
    assert "script.py:3" not in done.stdout


def test_sizes_and_times_are_written_as_people_do() -> None:
    assert [parse_bytes(text) for text in ("500", "10MB", "1.5K", "1GiB")] == [500, 10_000_000, 1500, 2**30]
    assert [parse_seconds(text) for text in ("90", "1.5s", "15min", "7d")] == [90, 1.5, 900, 604_800]
    for parse, text in ((parse_bytes, "10 potatoes"), (parse_seconds, "1 year"), (parse_seconds, "-1s")):
        with pytest.raises(ValueError, match=text):
            parse(text)
