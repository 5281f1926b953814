"""How many examples property tests try: few where a developer waits, all in the CI."""

from __future__ import annotations

import os


def examples(count: int) -> int:
    """Return the number of hypothesis examples: `count` with the variable CI set, else a quarter."""
    return count if os.environ.get("CI") else max(count // 4, 4)
