"""A fixture that loads the benchmark scripts, which are not modules of a package."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Return a function that loads `NAME.py` from the folder of benchmarks that has it."""

    def load_script(name: str) -> ModuleType:
        # Python does the same for a script.
        (path,) = BENCHMARKS.rglob(f"{name}.py")
        monkeypatch.syspath_prepend(path.parent)
        spec = importlib.util.spec_from_file_location(f"benchmark_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        # Data classes need their module in sys.modules.
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    return load_script
