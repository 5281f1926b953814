"""Options that several commands share."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from edgekit.options import Options, option
from edgekit.shared_options import MAX_SEED, MAX_THREADS

if TYPE_CHECKING:
    from edgekit.device.service.unit import Scope

_Function = TypeVar("_Function", bound=Callable[..., None])

# Upper limit far above any useful value; torch aborts on absurd ones.
MAX_BATCH = 65_536
SEED = click.IntRange(0, MAX_SEED)


class NumberRange(click.FloatRange):
    """click's FloatRange that rejects NaN. FloatRange accepts NaN, which is neither below nor above a limit."""

    name = "number"  # in the help

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number; NaN is a usage error."""
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value} is not a number", param, ctx)
        return number


class _NamedPath(click.Path):
    """click's Path that rejects the empty text, which pathlib would read as the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("the path is empty: name a file or a folder", param, ctx)
        return super().convert(value, param, ctx)


# A file or folder that need not exist; the value is a `pathlib.Path`.
PATH = _NamedPath(path_type=Path)


def refuse_unused(context: click.Context, parameters: Collection[str], reason: str) -> None:
    """Check that none of the options is given, because they would have no effect.

    Args:
        context: The parsed command.
        parameters: Names of the options' parameters.
        reason: Completes the message "--option …", such as "has no effect without --eval".

    Raises:
        click.UsageError: One of the options is given.
    """
    for each in context.command.params:
        if each.name in parameters and context.get_parameter_source(each.name) is not ParameterSource.DEFAULT:
            negated = each.secondary_opts and context.params[each.name] is False
            name = (each.secondary_opts if negated else each.opts)[0]
            raise click.UsageError(f"{name} {reason}: leave it out", context)


def combined(*options: Callable[..., Any]) -> Callable[[_Function], _Function]:
    """Return one decorator that adds several options, in their order. Each argument is a result of `click.option`."""
    return lambda function: functools.reduce(lambda decorated, option: option(decorated), reversed(options), function)


@dataclass(frozen=True, kw_only=True)
class ServiceOptions(Options):
    """Which systemd service a command is about."""

    title = "Service"
    name: str = option("--name", "Name of the service.", default="edgekit", metavar="NAME")
    user: bool = option("--user", "A user service. Default for all users except root.", default=False)
    system: bool = option(
        "--system",
        "A system service, which only root can change. Default for root.",
        default=False,
        excludes="--user",
    )

    @property
    def scope(self) -> Scope | None:
        """The given one of user and system; None: the default of the user."""
        return "user" if self.user else "system" if self.system else None


threads_option = click.option(
    "--threads",
    type=click.IntRange(1, MAX_THREADS),
    metavar="N",
    help="CPU threads of each net. Default: chosen for this machine.",
)
contempt_option = click.option(
    "--contempt",
    default="drop",
    show_default=True,
    metavar="drop|keep|CLASS",
    help="Images of contempt, the eighth expression of CK+: drop them, keep them, or count them as CLASS.",
)
activation_option = click.option(
    "--activation",
    type=click.Choice(["gelu", "quick-gelu"]),
    help="Activation function of the CLIP, if its file does not name it. OpenAI's weights need quick-gelu.",
)
merge_option = click.option(
    "--merge",
    "merges",
    multiple=True,
    metavar="NEW=OLD,OLD",
    help="Merge old classes into a new one. Classes that no --merge names are removed. Repeatable.",
)
