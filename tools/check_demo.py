"""Check that a run on the bundled portrait found the expected label.

Usage: `check_demo.py RESULTS.jsonl`
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

EXPECTED_LABEL = "happy"
REQUIRED_SHARE = 0.8


def share_of_frames(path: Path) -> tuple[int, int]:
    """Return the number of frames with a face of the expected label, and the number of all frames."""
    frames = [json.loads(line) for line in path.read_text().splitlines()]
    matching = sum(any(face["label"] == EXPECTED_LABEL for face in frame["faces"]) for frame in frames)
    return matching, len(frames)


def main() -> int:
    """Print the share of frames with the expected label and return 0 if it is large enough, else 1."""
    matching, total = share_of_frames(Path(sys.argv[1]))
    enough = total > 0 and matching >= REQUIRED_SHARE * total
    print(
        f"'{EXPECTED_LABEL}' in {matching} of {total} frames of the portrait "
        f"({'at least' if enough else 'FAILED: fewer than'} {REQUIRED_SHARE:.0%})"
    )
    return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main())
