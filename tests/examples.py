"""The number of examples of property tests, faults and mutated inputs: all examples in CI, a quarter elsewhere."""

from __future__ import annotations

import os


def examples(count: int) -> int:
    """Return the number of examples: `count` with the variable CI set, else a quarter."""
    return count if os.environ.get("CI") else max(count // 4, 4)
