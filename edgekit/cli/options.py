"""Options that several commands have."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

_Function = TypeVar("_Function", bound=Callable[..., None])

# More threads or images a batch than any machine this is for has use of; torch and OpenMP abort on absurd numbers.
MAX_THREADS = 1024
MAX_BATCH = 65_536
SEED = click.IntRange(0, 2**32 - 1)


class NumberRange(click.FloatRange):
    """click's FloatRange, which lets nan pass: it is neither below nor above a limit."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number."""
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value} is no number", param, ctx)
        return number


class _NamedPath(click.Path):
    """click's Path, which takes the empty text of an unset variable for the folder one is in."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("the path is empty: name a file or a folder", param, ctx)
        return super().convert(value, param, ctx)


# A file or folder, which need not exist; the value is a `pathlib.Path`.
PATH = _NamedPath(path_type=Path)


class _DetectorName(click.Choice[str]):
    """A detector of edgekit's, or one that another package registers; those are looked for only if they are meant."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value not in self.choices:
            from edgekit.device.registry import names

            if value in names("detector"):
                return value
        return super().convert(value, param, ctx)


def refuse_unused(context: click.Context, parameters: Sequence[str], reason: str) -> None:
    """Refuse those of the options that were given although they would do nothing; `reason` says what they are for.

    Raises:
        click.UsageError: One was given.
    """
    for option in context.command.params:
        if option.name in parameters and context.get_parameter_source(option.name) is not ParameterSource.DEFAULT:
            raise click.UsageError(f"{option.opts[0]} {reason}: leave it out", context)


def grouped_options(
    parameter: str, kind: type[Any], options: Sequence[Callable[..., Any]]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return what adds `options` to a command, which gets their values as one `parameter`.

    `kind` is a data class whose fields are named as the options' parameters are.
    """
    names = [field.name for field in fields(kind)]

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> None:
            group = kind(**{name: kwargs.pop(name) for name in names})
            function(*args, **{parameter: group}, **kwargs)

        decorated: Callable[..., None] = wrapper
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


def detector_options(function: _Function) -> _Function:
    """Add --detector, --detector-model and --detector-size."""
    decorators = (
        click.option(
            "--detector",
            "detector_name",
            type=_DetectorName(["yunet", "haar", "none"]),
            default="yunet",
            show_default=True,
            help="What finds the faces; none: every frame is one.",
        ),
        click.option(
            "--detector-model",
            type=PATH,
            metavar="FILE",
            help="YuNet's .onnx file; default: downloaded once.",
        ),
        click.option(
            "--detector-size",
            type=click.IntRange(32, 4096),
            default=320,
            show_default=True,
            metavar="PX",
            help="Longer side of the picture that the detector sees.",
        ),
    )
    for decorator in reversed(decorators):
        function = decorator(function)
    return function


def threads_option(function: _Function) -> _Function:
    """Add --threads N."""
    return click.option(
        "--threads",
        type=click.IntRange(1, MAX_THREADS),
        metavar="N",
        help="CPU threads; default: chosen for the machine.",
    )(function)


def contempt_option(function: _Function) -> _Function:
    """Add --contempt."""
    return click.option(
        "--contempt",
        default="drop",
        show_default=True,
        metavar="drop|keep|CLASS",
        help="What becomes of contempt beside the seven expressions (CK+).",
    )(function)


def activation_option(function: _Function) -> _Function:
    """Add --activation."""
    return click.option(
        "--activation",
        type=click.Choice(["gelu", "quick-gelu"]),
        help="The CLIP's, where its file does not say it: bare weights of OpenAI's want quick-gelu.",
    )(function)


def merge_option(function: _Function) -> _Function:
    """Add --merge NEW=OLD,OLD."""
    return click.option(
        "--merge",
        "merges",
        multiple=True,
        metavar="NEW=OLD,OLD",
        help="Put classes together, and leave out those that no --merge names. Repeatable.",
    )(function)


def path_option(flag: str, metavar: str, text: str) -> Callable[[_Function], _Function]:
    """Return an option that takes a file, which need not exist."""
    return click.option(flag, type=PATH, metavar=metavar, help=text)
