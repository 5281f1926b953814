"""The public API: the names of `import edgekit`, and their lazy imports."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import edgekit


@pytest.mark.parametrize("name", edgekit.__all__)
def test_each_public_name_is_found_and_documented(name: str) -> None:
    value = getattr(edgekit, name)
    if name != "__version__":
        assert value.__doc__
    assert name in dir(edgekit)


def test_importing_edgekit_loads_only_the_standard_library() -> None:
    code = "import sys; before = set(sys.modules); import edgekit; print(*(set(sys.modules) - before))"
    loaded = {name.partition(".")[0] for name in run(code).split()}
    assert loaded <= sys.stdlib_module_names | {"edgekit"}


@pytest.mark.parametrize("first", ["edgekit.export.targets", "edgekit.export.run", "edgekit.models.nets.registry"])
def test_export_is_callable_whatever_was_imported_before(first: str) -> None:
    code = (
        f"import edgekit, importlib; importlib.import_module('{first}')\n"
        "from edgekit.export import targets\n"
        "print(callable(edgekit.export), targets.__name__)"
    )
    assert run(code).split() == ["True", "edgekit.export.targets"]


def test_the_device_side_of_the_api_loads_no_framework() -> None:
    code = (
        "import edgekit, json, sys\n"
        "edgekit.load_model, edgekit.stream, edgekit.detect_faces, edgekit.crop_photos, edgekit.benchmark\n"
        "print(json.dumps([name for name in ('torch', 'onnx', 'matplotlib') if name in sys.modules]))"
    )
    assert json.loads(run(code)) == []


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
