"""Files sent to a board's store through a real sshd."""

from __future__ import annotations

import fcntl
import hashlib
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
    return Store(str(tmp_path / "it's a; $(store)"), frozenset(), {})


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


@pytest.mark.parametrize("name", ["model", "model.", "model.a b", "model.$(x)", "model.;", "model.aaaaaaaaaaaa"])
def test_only_an_alphanumeric_suffix_is_kept(make_upload: MakeUpload, name: str) -> None:
    upload = make_upload(name, 1)
    assert upload.name == upload.sha256


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


@pytest.mark.parametrize("known", [True, False], ids=["probed before", "not probed"])
def test_a_partial_file_is_completed(
    connection: Connection, store: Store, make_upload: MakeUpload, known: bool
) -> None:
    upload = make_upload()
    Path(store.folder).mkdir()
    Path(f"{store.path(upload)}.part").write_bytes(upload.path.read_bytes()[:200_000])
    looked_at = replace(store, parts={upload.name: 200_000} if known else {})
    positions: list[int] = []
    sent = send(connection, looked_at, upload, lambda done, _: positions.append(done))
    assert stored(store, upload).read_bytes() == upload.path.read_bytes()
    if known:
        assert sent == SIZE - 200_000
        assert min(positions) > 200_000


def test_a_damaged_partial_file_is_sent_again(connection: Connection, store: Store, make_upload: MakeUpload) -> None:
    upload = make_upload()
    Path(store.folder).mkdir()
    Path(f"{store.path(upload)}.part").write_bytes(b"x" * 1000)
    send(connection, replace(store, parts={upload.name: 1000}), upload)
    assert hashlib.sha256(stored(store, upload).read_bytes()).hexdigest() == upload.sha256


def test_a_partial_file_that_is_too_long_is_sent_again(
    connection: Connection, store: Store, make_upload: MakeUpload
) -> None:
    upload = make_upload(size=100)
    Path(store.folder).mkdir()
    Path(f"{store.path(upload)}.part").write_bytes(b"x" * 1000)
    send(connection, replace(store, parts={upload.name: 1000}), upload)
    assert stored(store, upload).read_bytes() == upload.path.read_bytes()


def test_an_interrupted_file_is_completed_by_the_next_call(sshd: Sshd, store: Store, make_upload: MakeUpload) -> None:
    upload = make_upload(size=8 << 20)
    cut = Connection(sshd.host())

    def cut_at(done: int, total: int) -> None:
        if done > total // 2 and cut._master is not None:
            cut._master.kill()

    with cut, pytest.raises(HostError):
        send(cut, store, upload, cut_at)
    assert not stored(store, upload).exists()
    half = Path(f"{store.path(upload)}.part").stat().st_size
    assert 0 < half < upload.size_bytes
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


def test_a_board_that_accepts_no_data_times_out(
    connection: Connection, store: Store, make_upload: MakeUpload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekit.remote.transfer._SILENCE_S", 0.5)
    upload = make_upload()
    Path(store.folder).mkdir()
    with Path(store.folder, f"{upload.name}.part").open("w") as half:
        fcntl.flock(half, fcntl.LOCK_EX)
        with pytest.raises(HostError, match="sent and read nothing"):
            send(connection, store, upload)
    # The first transfer may have stored a part of the file before it ended.
    assert 0 < send(connection, store, upload) <= SIZE
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
        send(connection, Store(str(small_disk / "store"), frozenset(), {}), upload)
