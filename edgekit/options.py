"""Options that are declared once: a field of a data class holds flag, type, default, help, bounds and dependencies.

    @dataclass(frozen=True, kw_only=True)
    class WebhookOptions(Options):
        url: str | None = option("--webhook", "Post events to URL as JSON.", metavar="URL", main=True)
        token_file: Path | None = option("--webhook-token-file", "File with the bearer token.", needs="--webhook")

From such a class come the options of the command line (`edgekit.cli.command`), the keys of the settings file, the
checks, the arguments of a Python function (`takes`) and the reference pages. A field without `option` is an argument of
the Python function only.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, ParamSpec, TypeVar

from edgekit.errors import InputError

_Arguments = ParamSpec("_Arguments")
_Kind = TypeVar("_Kind")
_Result = TypeVar("_Result")

_METADATA = "option"
_SIZE_UNITS = {"": 1, "B": 1, "K": 10**3, "KB": 10**3, "M": 10**6, "MB": 10**6, "G": 10**9, "GB": 10**9,
               "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}  # fmt: skip
_TIME_UNITS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True)
class Option:
    """What a field's `option` states about it; the field itself has the name, the type and the default.

    Attributes:
        flag: The long flag, such as "--webhook". Without dashes it is the key of the settings file. A flag of a bool
            has the opposite "--no-webhook".
        short: A short flag, such as "-o".
        help: One or two sentences.
        metavar: What the value is, such as "FILE"; default: derived from the type.
        parse: Returns the value of a text; raises ValueError or InputError. Default: derived from the type.
        several: Whether an option with `parse` can be repeated; its field receives a tuple.
        bare: The value of the flag without a value; None: a value is required.
        least, most: Bounds of a number, included.
        needs: Flags of which one at least must be in effect, or this option has no effect.
        excludes: Flags that cannot be in effect together with this one.
        default_text: The default in the help; default: the value itself, if there is one.
        section: Heading in the help; default: the title of the class.
        main: Whether `--help` of a command with many options lists this one; `--help-all` lists all of them.
        required: Whether the option must be given.
    """

    flag: str
    help: str
    short: str | None = None
    metavar: str | None = None
    parse: Callable[[str], Any] | None = None
    several: bool = False
    bare: object = None
    least: float | None = None
    most: float | None = None
    needs: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    default_text: str | None = None
    section: str | None = None
    main: bool = False
    required: bool = False

    @property
    def key(self) -> str:
        """The key of the settings file."""
        return self.flag.lstrip("-")


def option(
    flag: str,
    help: str,
    *,
    default: Any = None,
    needs: str | tuple[str, ...] = (),
    excludes: str | tuple[str, ...] = (),
    required: bool = False,
    **more: Any,
) -> Any:
    """Return the field of an `Options` class for one option; the arguments are those of `Option`.

    The type of the field is one of bool, int, float, str, Path, a Literal of texts, a union of these with None, or a
    tuple or sequence of one of these for an option that can be repeated. Any other type needs `parse`.
    """
    declared = Option(flag, help, needs=_as_tuple(needs), excludes=_as_tuple(excludes), required=required, **more)
    return dataclasses.field(default=dataclasses.MISSING if required else default, metadata={_METADATA: declared})


def same_option(kind: type[Any], name: str, *, default: Any = None, **changes: Any) -> Any:
    """Return a field with the option of field `name` of another class; `changes` are other values of `Option`."""
    declared = dataclasses.replace(declared_options(kind)[name], **changes)
    return dataclasses.field(default=default, metadata={_METADATA: declared})


class Options:
    """Base of the data classes of options; an instance has been checked against the bounds of its options.

    Attributes:
        title: The heading of these options in the help, such as "Events".
    """

    title: ClassVar[str] = "Options"

    def __post_init__(self) -> None:
        for name, declared in declared_options(type(self)).items():
            check_bounds(name, declared, getattr(self, name))


def declared_options(kind: type[Any]) -> dict[str, Option]:
    """Return the options of a data class by the name of their field, in the order of their declaration."""
    return {field.name: field.metadata[_METADATA] for field in dataclasses.fields(kind) if _METADATA in field.metadata}


def defaults(kind: type[Any]) -> dict[str, Any]:
    """Return the default of each field that has one, by name."""
    found = {}
    for field in dataclasses.fields(kind):
        if field.default is not dataclasses.MISSING:
            found[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            found[field.name] = field.default_factory()
    return found


def as_document(options: Options) -> dict[str, Any]:
    """Return the values of the declared options, ready for JSON; names are those of the settings file with _ for -."""
    return {
        declared.key.replace("-", "_"): _plain(getattr(options, name))
        for name, declared in declared_options(type(options)).items()
    }


def check_bounds(name: str, declared: Option, value: object) -> None:
    """Check a value against the bounds of its option; `name` is its name in the message.

    Raises:
        InputError: The value is a number that is out of bounds, or NaN. Other values have no bounds.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):  # for Python, a bool is an int
        return
    least = -math.inf if declared.least is None else declared.least
    most = math.inf if declared.most is None else declared.most
    if not least <= value <= most:  # NaN is not within any bounds
        raise InputError(f"{name} is {value}: {describe_bounds(declared)}")


def describe_bounds(declared: Option) -> str:
    """Return the bounds of an option as text, such as "expected 1 to 16"."""
    if declared.least is not None and declared.most is not None:
        return f"expected {declared.least:g} to {declared.most:g}"
    if declared.least is not None:
        return f"expected at least {declared.least:g}"
    # An option without bounds is only refused for NaN.
    return "expected a number" if declared.most is None else f"expected at most {declared.most:g}"


def build(kind: Callable[_Arguments, _Kind], *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Kind:
    """Return an instance of a data class of options.

    Raises:
        InputError: An argument is unknown, missing or out of bounds.
    """
    # Checked here, because Python's own error for a wrong argument is a TypeError.
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    positional = [name for name, field in fields.items() if not field.kw_only]
    if len(args) > len(positional):
        named = [name for name, field in fields.items() if field.kw_only]
        value = args[len(positional)]
        example = f', such as {named[0]}="{value}"' if named and isinstance(value, (str, Path)) else ""
        raise InputError(f"too many arguments without a name: give {', '.join(named[:3])} by name{example}")
    for name in kwargs:
        if name not in fields:
            raise InputError(f"unknown argument '{name}': {_nearest(name, fields)}")
    given = {*positional[: len(args)], *kwargs}  # names
    missing = [name for name, field in fields.items() if _is_required(field) and name not in given]
    if missing:
        raise InputError(f"argument '{missing[0]}' is missing")
    return kind(*args, **kwargs)


def takes(
    kind: Callable[_Arguments, _Kind],
) -> Callable[[Callable[[_Kind], _Result]], Callable[_Arguments, _Result]]:
    """Return a decorator for a function whose argument is an instance of `kind`, a data class of options.

    The decorated function takes the fields of `kind` as arguments instead. Editors and mypy know these arguments; at
    run time a wrong one is an `InputError`.

        >>> @takes(WebhookOptions)
        ... def post(options: WebhookOptions) -> None: ...
        >>> post(url="http://127.0.0.1/")
    """

    def decorate(function: Callable[[_Kind], _Result]) -> Callable[_Arguments, _Result]:
        import functools
        import inspect

        @functools.wraps(function)
        def call(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
            return function(build(kind, *args, **kwargs))

        # `functools.wraps` sets __wrapped__, from which editors would show the arguments of `function`.
        del call.__wrapped__
        # The arguments of `kind`, and the result of `function`.
        returns = inspect.signature(function).return_annotation
        call.__signature__ = inspect.signature(kind).replace(return_annotation=returns)  # type: ignore[attr-defined]
        return call

    return decorate


def parse_bytes(text: str) -> int:
    """Return the number of bytes of a size such as 500000, 500K, 10MB or 1GiB.

    Raises:
        ValueError: The text is not a size.
    """
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([A-Za-z]*)", text)
    unit = _SIZE_UNITS.get(match.group(2).upper()) if match else None
    if match is None or unit is None:
        raise ValueError(f"'{text}' is not a size: write 500K, 10MB or 1GiB")
    return round(float(match.group(1)) * unit)


def parse_seconds(text: str) -> float:
    """Return the seconds of a time such as 90, 90s, 15min, 12h or 7d.

    Raises:
        ValueError: The text is not a time.
    """
    match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,9})?) ?([a-z]*)", text)
    unit = _TIME_UNITS.get(match.group(2)) if match else None
    if match is None or unit is None:
        raise ValueError(f"'{text}' is not a time: write 90s, 15min, 12h or 7d")
    return float(match.group(1)) * unit


def _plain(value: Any) -> Any:
    """Return a value ready for JSON: numbers, containers, and for all other values, such as paths, their text."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.init and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _nearest(name: str, known: Any) -> str:
    """Return the cure for an unknown name: the most similar known one, or all of them."""
    import difflib

    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean '{near[0]}'?" if near else f"choose from {', '.join(known)}"


def _as_tuple(flags: str | tuple[str, ...]) -> tuple[str, ...]:
    return (flags,) if isinstance(flags, str) else flags
