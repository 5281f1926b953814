"""The Raspberry Pi models whose latencies can be estimated from published ones."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class KnownBoard:
    """A board. `key` is its name on the command line, `name` its name in the table of rooflines."""

    key: str
    name: str
    cpu: str
    cores: int


KNOWN_BOARDS = {
    board.key: board
    for board in (
        KnownBoard("pi3b+", "Raspberry Pi 3B+", "Cortex-A53", 4),
        KnownBoard("zero2w", "Raspberry Pi Zero 2 W", "Cortex-A53", 4),
        KnownBoard("pi4", "Raspberry Pi 4B", "Cortex-A72", 4),
        KnownBoard("pi5", "Raspberry Pi 5", "Cortex-A76", 4),
    )
}
