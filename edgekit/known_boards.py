"""The Raspberry Pi models whose latencies can be estimated from published ones."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class KnownBoard:
    """A board. `key` is its name on the command line, `name` its name in the table of rooflines.

    `shared_cache_kib` is the size of the last cache level that all cores share.
    """

    key: str
    name: str
    cpu: str
    cores: int
    shared_cache_kib: int


# Cache sizes are those of the data sheets (BCM2837B0, RP3A0, BCM2711: L2; BCM2712: L3).
KNOWN_BOARDS = {
    board.key: board
    for board in (
        KnownBoard("pi3b+", "Raspberry Pi 3B+", "Cortex-A53", 4, 512),
        KnownBoard("zero2w", "Raspberry Pi Zero 2 W", "Cortex-A53", 4, 512),
        KnownBoard("pi4", "Raspberry Pi 4B", "Cortex-A72", 4, 1024),
        KnownBoard("pi5", "Raspberry Pi 5", "Cortex-A76", 4, 2048),
    )
}
