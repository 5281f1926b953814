"""The click option of a field declared with `edgekit.options.option`, and the conversion of its values."""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from edgekit.errors import InputError
from edgekit.options import Option, check_bounds, defaults

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# What a value is called in the help, by its type.
_METAVARS = {int: "N", float: "NUMBER", Path: "PATH", str: "TEXT"}


@dataclass(frozen=True)
class ValueType:
    """The type of a field: bool, a number, a text, a path, one of some words, or several of these.

    Attributes:
        kinds: The types other than words, such as (int,).
        words: Allowed words and their values, of a Literal.
        several: Whether the field is a tuple of values.
    """

    kinds: tuple[type, ...]
    words: dict[str, Any]
    several: bool

    @staticmethod
    def of(kind: type[Any], field: str) -> ValueType:
        """Return the type of a field of a data class, from its annotation.

        For `tuple[int | Literal["auto"], ...]`, `kinds` is (int,), `words` {"auto": "auto"}, and `several` true.
        """
        hint = _type_hint(kind, field)
        several = typing.get_origin(hint) in (tuple, Sequence)
        if several:
            hint = typing.get_args(hint)[0]
        kinds: list[type] = []
        words: dict[str, Any] = {}
        for part in _alternatives(hint):
            if typing.get_origin(part) is Literal:
                words |= {str(word): word for word in typing.get_args(part)}
            elif isinstance(part, type) and part is not type(None):  # None cannot be given on the command line
                kinds.append(part)
        return ValueType(tuple(kinds), words, several)

    @property
    def is_flag(self) -> bool:
        """Whether the option takes no value."""
        return self.kinds == (bool,)

    def convert(self, text: str) -> Any:
        """Return the value of a text.

        Raises:
            ValueError: The text is not such a value.
        """
        if text in self.words:
            return self.words[text]
        for number in (int, float):  # int first, so that 5 is an int where both are allowed
            if number in self.kinds:
                try:
                    return number(text)
                except ValueError:
                    continue
        if Path in self.kinds:
            if not text:
                raise ValueError("the path is empty: name a file or a folder")
            return Path(text)
        if str in self.kinds:
            return text
        choices = ", ".join(self.words)
        raise ValueError(f"'{text}' is not one of {choices}" if choices else f"'{text}' is not a number")


class Value(click.ParamType):  # type: ignore[type-arg]
    """click's type of the values of an option."""

    name = "value"

    def __init__(self, declared: Option, kind: ValueType) -> None:
        self.declared = declared
        self.kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the value, checked. The text of an option with `parse` stays a text, so that it can be printed."""
        try:
            if self.declared.parse is not None:
                # Only a check: `field_value` parses the text again.
                check_bounds(self.declared.flag, self.declared, self.declared.parse(value))
                return value
            value = self.kind.convert(value) if isinstance(value, str) else value
            check_bounds(self.declared.flag, self.declared, value)
        except (ValueError, InputError) as error:
            self.fail(str(error), param, ctx)
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Complete words, and names of files for everything else, because a text may be a path."""
        from click.shell_completion import CompletionItem

        del ctx, param
        words = [CompletionItem(word) for word in self.kind.words if word.startswith(incomplete)]
        return words or [CompletionItem(incomplete, type="file")]


# A path that need not exist, for `click.argument`.
PATH = Value(Option("path", "A file or folder."), ValueType((Path,), {}, several=False))


def field_value(declared: Option, given: Any) -> Any:
    """Return the value of a field from the value, or the tuple of values, of its click option."""
    if declared.parse is None:
        return given
    return tuple(map(declared.parse, given)) if isinstance(given, tuple) else declared.parse(given)


def parameter_name(declared: Option) -> str:
    """Return the name of the parameter of an option."""
    return declared.key.replace("-", "_")


def make_option(kind: type[Any], field: str, declared: Option, *, is_negatable: bool) -> click.Option:
    """Return the click option of a field; `is_negatable` gives a flag its opposite, as does the default True."""
    name = parameter_name(declared)
    default = defaults(kind).get(field)
    # An option with `parse` is a text for click.
    value_type = ValueType.of(kind, field) if declared.parse is None else ValueType((str,), {}, declared.several)
    if value_type.is_flag:
        opposite = f"/--no-{declared.key}" if is_negatable or default else ""
        return click.Option([f"{declared.flag}{opposite}", name], is_flag=True, default=default, help=declared.help)
    flags = [flag for flag in (declared.short, declared.flag) if flag]
    # The default is only shown: without the option, its class of options sets the field.
    shown_default = declared.default_text if declared.default_text is not None else _default_text(default)
    bare: dict[str, Any] = {}
    if declared.bare is not None:  # the option can be given without a value
        bare = {"is_flag": False, "flag_value": declared.bare}
    return click.Option(
        [*flags, name],
        type=Value(declared, value_type),
        multiple=value_type.several,
        required=declared.required,
        metavar=declared.metavar or _metavar(value_type),
        help=declared.help + (f"  [default: {shown_default}]" if shown_default else ""),
        **bare,
    )


def _type_hint(kind: type[Any], field: str) -> Any:
    """Return the type of one field. The other fields of the class may have types that only type checkers import."""
    owner = next(each for each in kind.__mro__ if field in vars(each).get("__annotations__", {}))
    one = types.SimpleNamespace(__annotations__={field: owner.__annotations__[field]})
    return typing.get_type_hints(one, vars(sys.modules[owner.__module__]))[field]


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """Return the types of a union, or the type itself."""
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


def _metavar(kind: ValueType) -> str:
    """Return what the help calls a value, such as "N" or "auto|N"."""
    names = [_METAVARS[each] for each in kind.kinds if each in _METAVARS]
    return "|".join([*names, *kind.words])


def _default_text(default: Any) -> str:
    """Return a default for the help; empty if the option is off or has no value by default."""
    if default is None or default == () or default is False:
        return ""
    return f"{default:g}" if isinstance(default, float) else str(default)
