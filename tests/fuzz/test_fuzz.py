"""Untrusted inputs, mutated with fixed seeds: each is read or refused with one line, in limited time and memory.

`make fuzz SECONDS=3600` runs more seeds.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.examples import examples
from tests.fuzz import runner, targets

# The CI runs further seeds.
COUNT = examples(8)


def test_every_input_is_read_or_refused_with_one_line() -> None:
    outcome = runner.fuzz(list(targets.TARGETS), 0, COUNT)
    assert outcome.wrong == {}
    for name in targets.TARGETS:
        assert sum(count for key, count in outcome.counts.items() if key.split()[0] == name) == COUNT


@pytest.mark.parametrize(("name", "seed"), [("archive", 5004), ("archive", 5054)])
def test_what_was_found_once_stays_mended(name: str, seed: int) -> None:
    assert runner.fuzz([name], seed, 1).wrong == {}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("raise KeyError('x')", "KeyError: 'x'"),
        ("import os; os.kill(os.getpid(), 11)", "the process ended with -11"),
        ("import time; time.sleep(60)", "_TooLongError: too long"),
    ],
)
def test_a_fault_is_found(fault: str, reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # `sitecustomize` adds a target with the fault to the child process.
    (tmp_path / "sitecustomize.py").write_text(
        "from edgekit.errors import InputError\n"
        "from tests.fuzz.targets import TARGETS, Target\n"
        "def read(path):\n"
        f"    {fault}\n"
        "TARGETS['planted'] = Target(read, lambda choice: b'', limit_s=1)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    outcome = runner.fuzz(["planted"], 0, 1)
    assert list(outcome.wrong) == ["planted 0"]
    assert outcome.wrong["planted 0"].startswith(reason)
