"""Files sent to a board's store through a real sshd."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from edgekit.errors import HostError
from edgekit.remote.hosts import Host
from edgekit.remote.payload import Upload, pack
from edgekit.remote.prepare import clean, prepare
from edgekit.remote.probe import probe
from edgekit.remote.ssh import Connection

from .conftest import Sshd, cut
from .release_board import Quiet

SIZE = 300_000
MakeUpload = Callable[..., Upload]


@pytest.fixture
def make_upload(tmp_path: Path) -> MakeUpload:
    def make(name: str = "model.onnx", size: int = SIZE) -> Upload:
        path = tmp_path / name
        path.write_bytes(os.urandom(size))
        return pack(path, "model")

    return make


@pytest.fixture(autouse=True)
def own(sshd: Sshd) -> Iterator[None]:
    """An edgekit that is installed on a board without other files of ours, so that only files are sent."""
    with Connection(sshd.host()) as connection:
        clean(connection)
    path = sshd.home / ".local/bin/edgekit"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o755)
    yield
    path.unlink()
    with Connection(sshd.host()) as connection:
        clean(connection)


def send(
    connection: Connection, uploads: Sequence[Upload], on_progress: Callable[[float], object] = lambda _: None
) -> int:
    """Send files and return the number of bytes sent."""

    class Reporter(Quiet):
        def progress(self, host: Host, what: str, done: float, total: float) -> None:
            del host, what
            on_progress(done / total)

    reporter = Reporter()
    return prepare(connection, probe(connection), uploads, install=False, reporter=reporter).sent_bytes


def stored(sshd: Sshd) -> list[Path]:
    return sorted((sshd.home / ".cache/edgekit/board/store").glob("*"))


def test_files_arrive_under_their_hashes_and_are_not_sent_again(
    connection: Connection, sshd: Sshd, make_upload: MakeUpload
) -> None:
    one, two = make_upload("a'; touch planted; $(x)\n\x1b[2J.onnx"), make_upload("two.toml", 7)
    shares: list[float] = []
    assert send(connection, [one], shares.append) == SIZE
    assert shares[-1] == 1
    assert send(connection, [one, two, two]) == 7
    assert send(connection, [one, two]) == 0
    assert {path.name: path.read_bytes() for path in stored(sshd)} == {
        f"{one.sha256}.onnx": one.path.read_bytes(),
        f"{two.sha256}.toml": two.path.read_bytes(),
    }


def test_an_interrupted_file_is_sent_again_by_the_next_call(sshd: Sshd, make_upload: MakeUpload) -> None:
    upload = make_upload(size=8 << 20)
    with Connection(sshd.host()) as connected, pytest.raises(HostError):
        send(connected, [upload], lambda share: share <= 0.5 or cut(connected))
    assert stored(sshd) == []
    with Connection(sshd.host()) as connected:
        assert send(connected, [upload]) == upload.size_bytes
    assert [path.read_bytes() for path in stored(sshd)] == [upload.path.read_bytes()]
