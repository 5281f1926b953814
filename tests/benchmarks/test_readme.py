"""The page of the benchmarks lists every script."""

from __future__ import annotations

from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_every_script_is_listed() -> None:
    page = (BENCHMARKS / "README.md").read_text()
    scripts = [path for path in BENCHMARKS.rglob("*.py") if path.name != "__init__.py"]
    assert [path.name for path in scripts if f"`{path.name}`" not in page] == []
