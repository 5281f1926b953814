"""Option types: sizes and times with units (10MB, 90s, 7d), strategies of --collect-when, lists of commands."""

from __future__ import annotations

import math
import re

import click

_SIZE_UNITS = {"": 1, "B": 1, "K": 10**3, "KB": 10**3, "M": 10**6, "MB": 10**6, "G": 10**9, "GB": 10**9,
               "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}  # fmt: skip
_TIME_UNITS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}
# Of --collect-when: the margin of `uncertain`, and the shortest time of `every`.
_DEFAULT_MARGIN = 0.3
_LEAST_INTERVAL_S = 0.1
# Of --mqtt-commands (device/sinks/mqtt/commands.py, which is not imported because of its imports).
_COMMANDS = ("pause", "snapshot")


class Size(click.ParamType):  # type: ignore[type-arg]
    """A size of at least `min_bytes`: 500000, 500K, 10MB, 1GiB; the value is an int in bytes."""

    name = "size"

    def __init__(self, min_bytes: int = 1) -> None:
        self._min_bytes = min_bytes

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the size in bytes."""
        match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([A-Za-z]*)", str(value))
        unit = _SIZE_UNITS.get(match.group(2).upper()) if match else None
        if match is None or unit is None:
            self.fail(f"'{value}' is not a size: write 500K, 10MB or 1GiB", param, ctx)
        size = round(float(match.group(1)) * unit)
        if size < self._min_bytes:
            self.fail(f"'{value}' is too small: at least {self._min_bytes} bytes", param, ctx)
        return size


class Duration(click.ParamType):  # type: ignore[type-arg]
    """A time of at least `min_s`: 90, 90s, 15min, 12h, 7d; the value is a float in seconds."""

    name = "time"

    def __init__(self, min_s: float = 0.0) -> None:
        self._min_s = min_s

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the time in seconds."""
        match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,9})?) ?([a-z]*)", str(value))
        unit = _TIME_UNITS.get(match.group(2)) if match else None
        if match is None or unit is None:
            self.fail(f"'{value}' is not a time: write 90s, 15min, 12h or 7d", param, ctx)
        seconds = float(match.group(1)) * unit
        if not math.isfinite(seconds) or seconds < self._min_s:
            self.fail(f"'{value}' is too short: at least {self._min_s:g} s", param, ctx)
        return seconds


class CollectWhen(click.ParamType):  # type: ignore[type-arg]
    """Strategy of --collect-when, as text: `uncertain`, `uncertain:MARGIN`, `every:TIME` or `best-of-track`."""

    name = "strategy"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text, checked."""
        try:
            parse_collect_when(str(value))
        except (ValueError, click.BadParameter):
            self.fail(
                f"'{value}' is not a strategy: write uncertain, uncertain:0.2 (a margin of 0 to 1), every:10s or "
                "best-of-track",
                param,
                ctx,
            )
        return str(value)


class Commands(click.ParamType):  # type: ignore[type-arg]
    """Names of commands separated by commas, as text; "" for none."""

    name = "list"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text without spaces, checked."""
        names = [name.strip() for name in str(value).split(",")]
        unknown = [name for name in names if name and name not in _COMMANDS]
        if unknown:
            self.fail(f"'{unknown[0]}' is not a command: choose from {', '.join(_COMMANDS)}", param, ctx)
        return ",".join(name for name in names if name)


def parse_collect_when(text: str) -> tuple[str, float]:
    """Return the name of a strategy of --collect-when and its number: margin, seconds, or 0 if it has none.

    Raises:
        ValueError, click.BadParameter: The text is not a strategy.
    """
    name, colon, value = text.partition(":")
    if name == "uncertain":
        margin = float(value) if colon else _DEFAULT_MARGIN
        if not 0 < margin <= 1:
            raise ValueError(text)
        return name, margin
    if name == "every":
        return name, Duration(_LEAST_INTERVAL_S).convert(value, None, None)
    if text != "best-of-track":
        raise ValueError(text)
    return text, 0.0
