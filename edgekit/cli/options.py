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

from edgekit.device.region import MAX_INPUT_SIZE_PX, MIN_INPUT_SIZE_PX
from edgekit.options import Options, option

if TYPE_CHECKING:
    from edgekit.device.service.unit import Scope

_Function = TypeVar("_Function", bound=Callable[..., None])

# Upper limits far above any useful value; torch and OpenMP abort on absurd ones.
MAX_THREADS = 1024
MAX_BATCH = 65_536
SEED = click.IntRange(0, 2**32 - 1)


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


class _DetectorName(click.Choice):  # type: ignore[type-arg] # not generic before click 8.2
    """Name of a detector. Other packages are searched only for a name that is not one of edgekit's detectors."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value not in self.choices:
            from edgekit.device.registry import names

            if value in names("detector"):
                return value
        return super().convert(value, param, ctx)


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
    name: str = option("--name", "Name of the service.", default="edgekit", metavar="NAME", main=True)
    user: bool = option("--user", "A user service. Default for all users except root.", default=False, main=True)
    system: bool = option(
        "--system",
        "A system service, which only root can change. Default for root.",
        default=False,
        excludes="--user",
        main=True,
    )

    @property
    def scope(self) -> Scope | None:
        """The given one of user and system; None: the default of the user."""
        return "user" if self.user else "system" if self.system else None


# --detector-model and --detector-size.
yunet_options = combined(
    click.option(
        "--detector-model",
        type=PATH,
        metavar="FILE",
        help="YuNet's .onnx file. Default: the file is downloaded once.",
    ),
    click.option(
        "--detector-size",
        type=click.IntRange(MIN_INPUT_SIZE_PX, MAX_INPUT_SIZE_PX),
        metavar="PX",
        help="Longer side of the detector's input image. Default: 320, or the fixed size of the file.",
    ),
)
# --detector, --detector-model and --detector-size.
detector_options = combined(
    click.option(
        "--detector",
        "detector_name",
        type=_DetectorName(["yunet", "haar", "none"]),
        help="Face detector. With none, each frame is one face. Default: yunet, or none for a model of whole images.",
    ),
    yunet_options,
)
min_face_option = click.option(
    "--min-face",
    type=click.IntRange(0, 100_000),
    default=0,
    metavar="PX",
    help="Discard faces smaller than PX. Without --detector-size, --min-face also sets the size of the detector's "
    "input.",
)
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


def path_option(flag: str, metavar: str, text: str) -> Callable[[_Function], _Function]:
    """Return an option whose value is a path that need not exist."""
    return click.option(flag, type=PATH, metavar=metavar, help=text)
