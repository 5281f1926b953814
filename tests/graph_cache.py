"""A cache of the graphs that torch makes of nets, which take seconds each: tests export the same nets again and again.

It starts empty, so that each net is exported once in every run of the tests.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest


@pytest.fixture(scope="session", autouse=True)
def graph_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let an export in this process take the graph of an equal net from a folder that all test processes share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "graphs"
    with pytest.MonkeyPatch.context() as monkeypatch:
        if find_spec("torch") is not None:
            folder.mkdir(exist_ok=True)
            _keep_graphs(folder, monkeypatch)
        yield


def _keep_graphs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnx_ir as ir
    import torch

    from edgekit.files import write_atomic

    export = torch.onnx.export

    def cached(net: Any, inputs: Any, *file: Any, **options: Any) -> Any:
        if file:  # a test that makes a file of its own
            return export(net, inputs, *file, **options)
        content = io.BytesIO()
        try:
            _Pickler(content).dump((net, inputs, repr(options)))
        except (AttributeError, pickle.PicklingError):  # a class within a test
            return export(net, inputs, **options)
        path = folder / f"{hashlib.sha256(content.getvalue()).hexdigest()}.onnx"
        if not path.is_file():
            write_atomic(path, ir.to_proto(export(net, inputs, **options).model).SerializeToString())
        return SimpleNamespace(model=ir.load(path))

    monkeypatch.setattr(torch.onnx, "export", cached)


class _Pickler(pickle.Pickler):
    """Pickles equal nets to equal bytes."""

    fast = True  # a text that occurs twice is written twice, whether it is one object or two

    def persistent_id(self, thing: Any) -> Any:
        import torch

        if isinstance(thing, torch.Tensor):
            values = thing.detach().cpu().contiguous().numpy()
            return str(values.dtype), values.shape, hashlib.sha256(values.data).hexdigest()
        return sorted(thing) if isinstance(thing, set) else None
