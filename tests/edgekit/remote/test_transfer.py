"""Files sent to a board's store through a real sshd."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.errors import HostError, InputError
from edgekit.remote.ssh import Connection
from edgekit.remote.transfer import Store, Upload, pack, send

from .conftest import Sshd

SIZE = 300_000
MakeUpload = Callable[..., Upload]


@pytest.fixture
def make_upload(tmp_path: Path) -> MakeUpload:
    def make(name: str = "model.onnx", size: int = SIZE) -> Upload:
        path = tmp_path / name
        path.write_bytes(os.urandom(size))
        return pack(path, "model")

    return make


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "it's a; $(store)"), frozenset())


def stored(store: Store, upload: Upload) -> Path:
    return Path(store.path(upload))


def contents(store: Store) -> list[str]:
    return sorted(path.name for path in Path(store.folder).iterdir())


def test_a_file_arrives_under_its_hash(connection: Connection, store: Store, make_upload: MakeUpload) -> None:
    upload = make_upload("a'; touch planted; $(x)\n\x1b[2J.onnx")
    seen: list[tuple[int, int]] = []
    assert send(connection, store, upload, lambda done, total: seen.append((done, total))) == SIZE
    assert stored(store, upload).read_bytes() == upload.path.read_bytes()
    assert contents(store) == [f"{upload.sha256}.onnx"]
    assert seen[-1] == (SIZE, SIZE)


def test_a_file_in_the_store_is_not_sent(connection: Connection, store: Store, make_upload: MakeUpload) -> None:
    upload = make_upload()
    send(connection, store, upload)
    before = stored(store, upload).stat().st_ino
    assert send(connection, replace(store, complete=frozenset({upload.name})), upload) == 0
    # It is also not replaced if another sender sent it after the store was read.
    send(connection, store, upload)
    assert stored(store, upload).stat().st_ino == before
    assert len(contents(store)) == 1


@pytest.mark.parametrize("damage", [b"", b"x" * SIZE], ids=["cut", "changed"])
def test_a_file_that_the_disk_of_the_board_has_damaged_is_sent_again(
    connection: Connection, store: Store, make_upload: MakeUpload, damage: bytes
) -> None:
    upload = make_upload()
    send(connection, store, upload)
    stored(store, upload).write_bytes(damage)
    assert send(connection, replace(store, complete=frozenset({upload.name})), upload) == SIZE
    assert stored(store, upload).read_bytes() == upload.path.read_bytes()
    assert contents(store) == [upload.name]


def test_an_interrupted_file_is_sent_again_by_the_next_call(sshd: Sshd, store: Store, make_upload: MakeUpload) -> None:
    upload = make_upload(size=8 << 20)
    cut = Connection(sshd.host())

    def cut_at(done: int, total: int) -> None:
        if done > total // 2 and cut._master is not None:
            cut._master.kill()

    with cut, pytest.raises(HostError):
        send(cut, store, upload, cut_at)
    assert not stored(store, upload).exists()
    with Connection(sshd.host()) as connected:
        send(connected, store, upload)
    assert stored(store, upload).read_bytes() == upload.path.read_bytes()


def test_several_senders_of_one_file_do_not_damage_it(
    connection: Connection, store: Store, make_upload: MakeUpload
) -> None:
    upload = make_upload(size=2 << 20)
    threads = [threading.Thread(target=send, args=(connection, store, upload)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert contents(store) == [upload.name]
    assert stored(store, upload).read_bytes() == upload.path.read_bytes()


@pytest.mark.parametrize("size", [SIZE, SIZE - 1, SIZE + 1, 0])
def test_a_file_that_changes_during_the_transfer_is_refused(
    connection: Connection, store: Store, make_upload: MakeUpload, size: int
) -> None:
    upload = make_upload()
    upload.path.write_bytes(b"y" * size)
    with pytest.raises(InputError, match="changed during the transfer"):
        send(connection, store, upload)
    assert not stored(store, upload).exists()


def test_a_full_disk_is_reported(connection: Connection, small_disk: Path, make_upload: MakeUpload) -> None:
    upload = make_upload(size=2 << 20)
    with pytest.raises(HostError, match=r"board: 'model\.onnx' could not be stored: .*No space left"):
        send(connection, Store(str(small_disk / "store"), frozenset()), upload)
