"""Boards whose disk becomes full during a deploy or a benchmark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest

from edgekit.errors import HostError
from edgekit.remote.ssh import Connection

from .release_board import Board, MakePackage, deploy


@pytest.fixture
def large_model(tiny_model: Path) -> bytes:
    """A valid model that is larger than the small disk."""
    model = onnx.load(tiny_model)
    model.doc_string = "x" * (2 << 20)
    return model.SerializeToString()


@pytest.fixture
def small_releases(board: Board, small_disk: Path) -> Iterator[Path]:
    """The board's releases on a disk of 1 MiB."""
    board.root.parent.parent.mkdir(parents=True, exist_ok=True)
    board.root.parent.symlink_to(small_disk)
    yield small_disk
    board.root.parent.unlink()


@pytest.mark.slow
@pytest.mark.usefixtures("small_releases")
def test_a_disk_that_fills_while_a_release_is_made_changes_nothing(
    connection: Connection, board: Board, make: MakePackage, large_model: bytes
) -> None:
    first = deploy(connection, make(1))
    with pytest.raises(HostError, match="No space left on device") as caught:
        deploy(connection, make(2, content=large_model))
    assert "\n" not in str(caught.value)
    assert board.current == first.release
    assert [path.name for path in (board.root / "releases").iterdir()] == [first.release]
    assert not (board.root / "pending").exists()
    assert deploy(connection, make(3)).error is None
