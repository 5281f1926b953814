"""Preparing a board: its properties, refusals, and an installation through a real sshd."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from edgekit.errors import HostError
from edgekit.files import sha256_of
from edgekit.remote import prepare as preparing
from edgekit.remote import wheels as wheeling
from edgekit.remote.prepare import EdgekitCommand, check_fit, clean, prepare, run_edgekit
from edgekit.remote.probe import Probe, parse_probe, probe
from edgekit.remote.ssh import Connection
from edgekit.remote.transfer import Upload, pack
from edgekit.remote.wheels import Target, dependency_wheels, own_wheel
from tests.waiting import wait_until

from .conftest import Sshd

# Output of the emulated board of tests/virtual_pi.
TRIXIE = """root=/home/pi/.cache/edgekit/board
machine=aarch64
bits=64
glibc=glibc 2.41
system=Debian GNU/Linux 13 (trixie)
release=trixie
model=Raspberry Pi 3 Model B Plus Rev 1.3
memory_kib=948280
free_kib=5242880
clock=1000
python=3.13 64 0 /usr/bin/python3
"""
MODULES = ("numpy", "cv2", "onnxruntime", "click", "jinja2", "msgspec", "platformdirs", "rich")


@pytest.fixture
def board() -> Probe:
    return parse_probe(TRIXIE, 1000.0)


def test_properties_are_parsed(board: Probe) -> None:
    assert board.describe() == (
        "Raspberry Pi 3 Model B Plus Rev 1.3, Debian GNU/Linux 13 (trixie), Python 3.13, 926 MiB memory, "
        "5120 MiB disk free"
    )
    assert board.python is not None
    assert (board.glibc, board.python.version, board.python.picamera2) == ((2, 41), (3, 13), False)
    assert check_fit(board, "pi") == board.python


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("bits=64", "bits=32", "32-bit system.*64-bit Raspberry Pi OS. Nothing was installed"),
        ("machine=aarch64", "machine=armv7l", "32-bit system"),
        ("3.13 64 0", "3.13 32 0", "32-bit system"),
        ("machine=aarch64", "machine=riscv64", "'riscv64'"),
        ("python=3.13 64 0 /usr/bin/python3", "", "no python3"),
        ("python=3.13", "python=3.9", "Python 3.9 is too old, edgekit needs 3.11"),
        ("glibc=glibc 2.41", "glibc=", "GNU C library"),
    ],
)
def test_unsuitable_boards_are_refused_with_the_reason(old: str, new: str, message: str) -> None:
    with pytest.raises(HostError, match=message):
        check_fit(parse_probe(TRIXIE.replace(old, new), 1000.0), "pi")


@pytest.mark.parametrize("text", ["", "root=/x", "root=relative\nclock=1", "root=/x\nclock=soon", "\x1b[2J"])
def test_incomplete_output_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no (home folder|clock)"):
        parse_probe(text, 0.0)


@pytest.mark.usefixtures("uploads")
def test_a_full_board_is_refused_before_anything_is_sent(board: Probe, connection: Connection) -> None:
    here = replace(board, machine=platform.machine(), free_bytes=1 << 20)
    with pytest.raises(HostError, match=r"1 MiB of the board's disk are free, \d+ MiB are needed"):
        prepare(connection, here)


@pytest.mark.parametrize("folder", ["", "edgekit", "edgekit/board"])
def test_the_free_space_is_that_of_the_disk_of_edgekits_folder(
    connection: Connection, sshd: Sshd, small_disk: Path, folder: str
) -> None:
    cache, aside = sshd.home / ".cache", sshd.home / "cache of other tests"
    if cache.exists():
        cache.rename(aside)
    try:
        cache.symlink_to(small_disk)
        (cache / folder).mkdir(parents=True, exist_ok=True)
        free_bytes = probe(connection).free_bytes
    finally:
        cache.unlink()
        if aside.exists():
            aside.rename(cache)
    assert free_bytes is not None
    assert free_bytes <= 1 << 20


def test_a_camera_needs_picamera2(board: Probe, connection: Connection) -> None:
    with pytest.raises(HostError, match="sudo apt install python3-picamera2"):
        prepare(connection, board, camera=True)


@pytest.fixture
def forget_wheel() -> Iterator[Callable[[], None]]:
    """A function that makes this process pack its wheel again; it is also called before and after the test."""
    wheeling._pack_wheel.cache_clear()
    yield wheeling._pack_wheel.cache_clear
    wheeling._pack_wheel.cache_clear()


def test_the_same_files_make_the_same_wheel(tmp_path: Path, forget_wheel: Callable[[], None]) -> None:
    one = own_wheel(tmp_path / "a")
    forget_wheel()
    other = own_wheel(tmp_path / "b")
    assert one.sha256 == other.sha256
    with zipfile.ZipFile(one.path) as archive:
        names = archive.namelist()
        record = archive.read(next(name for name in names if name.endswith("/RECORD"))).decode()
    assert {"edgekit/__init__.py", "edgekit/device/stages.py", "edgekit/assets/default.onnx"} <= set(names)
    assert len(names) == len(set(names))
    assert {line.split(",")[0] for line in record.splitlines()} == set(names)
    assert not any("__pycache__" in name for name in names)


def test_pip_installs_the_wheel(tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", tmp_path / "site"]
    done = subprocess.run([*arguments, own_wheel(tmp_path).path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site/edgekit/cli/commands/bench.py").exists()


def test_boards_of_one_platform_share_one_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    downloads: list[Path] = []

    def download(wheel: Upload, target: Target, folder: Path, is_cancelled: Callable[[], bool]) -> None:
        del wheel, target, is_cancelled
        downloads.append(folder)
        time.sleep(0.2)  # long enough for the other threads to start
        folder.mkdir()
        (folder / "wheels.json").write_text("[]")

    monkeypatch.setattr(wheeling, "_download", download)
    own = own_wheel(tmp_path)
    target = Target("aarch64", (3, 13), (2, 41))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: dependency_wheels(own, target, tmp_path), range(4)))
    assert found == [[]] * 4
    assert len(downloads) == 1


@pytest.mark.parametrize(
    ("stderr", "reason"),
    [
        ("WARNING: slow\nERROR: no match for numpy\nERROR: No matching distribution\n", "ERROR: no match for numpy"),
        ("ERROR: Exception:\nTraceback:\n  x\nOSError: [Errno 28] No space left on device\n", "OSError: [Errno 28]"),
        ("/usr/bin/python3: No module named pip.__main__\n", "No module named pip"),
        ("", "no message"),
    ],
)
def test_a_failed_download_is_reported_with_pips_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stderr: str, reason: str
) -> None:
    own = own_wheel(tmp_path)
    use_as_pip(tmp_path, monkeypatch, f"printf %s {shlex.quote(stderr)} >&2; exit 1")
    with pytest.raises(HostError, match=f"cannot be downloaded: pip: .*{re.escape(reason)}"):
        dependency_wheels(own, Target("aarch64", (3, 13), (2, 41)), tmp_path)


@pytest.mark.parametrize("is_listening", [False, True], ids=["nothing listens", "without the packages"])
def test_an_index_that_cannot_be_reached_differs_from_one_without_the_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_listening: bool
) -> None:
    (tmp_path / "index").mkdir()
    index = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=tmp_path / "index"))
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{index.server_port}/")
    for name, value in {"PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "1", "no_proxy": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    for name in ("EDGEKIT_OFFLINE", "PIP_NO_INDEX", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    thread = threading.Thread(target=index.serve_forever)
    if is_listening:
        thread.start()
    else:
        index.server_close()
    try:
        with pytest.raises(HostError) as error:
            dependency_wheels(own_wheel(tmp_path), Target("aarch64", (3, 13), (2, 41)), tmp_path)
    finally:
        if is_listening:
            index.shutdown()
            thread.join()
        index.server_close()
    assert ("PIP_INDEX_URL" in str(error.value)) == (not is_listening)
    assert ("satisfies the requirement" in str(error.value)) == is_listening
    assert "[Errno" not in str(error.value)


def use_as_pip(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Make the download call a shell script in place of `python -m pip`."""
    program = folder / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.delenv("EDGEKIT_OFFLINE", raising=False)


def test_an_interrupt_ends_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = tmp_path / "started"
    own = own_wheel(tmp_path)
    use_as_pip(tmp_path, monkeypatch, f": >'{started}'; exec sleep 600")
    with pytest.raises(HostError, match="interrupted"):
        dependency_wheels(own, Target("aarch64", (3, 13), (2, 41)), tmp_path, started.exists)
    assert [path.name for path in (tmp_path / "wheels").iterdir() if "own" not in path.name and path.is_dir()] == []


def test_what_a_killed_download_left_is_removed_by_a_later_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, target = own_wheel(tmp_path), Target("aarch64", (3, 13), (2, 41))
    left, present = tmp_path / "wheels/.new-board-a", tmp_path / "wheels/.new-board-b"
    for folder in (left, present):
        folder.mkdir()
    os.utime(left, (1e9, 1e9))
    use_as_pip(tmp_path, monkeypatch, "exit 1")
    with pytest.raises(HostError, match="cannot be downloaded"):
        dependency_wheels(own, target, tmp_path)
    assert [*(tmp_path / "wheels").glob(".new-*")] == [present]


def test_damaged_wheels_are_downloaded_again_and_old_platforms_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloads: list[Path] = []

    def download(wheel: Upload, target: Target, folder: Path, is_cancelled: Callable[[], bool]) -> None:
        del wheel, target, is_cancelled
        downloads.append(folder)
        folder.mkdir(exist_ok=True)
        (folder / "x.whl").write_bytes(b"whole")
        (folder / "wheels.json").write_text(json.dumps([["x.whl", sha256_of(folder / "x.whl"), 5]]))

    monkeypatch.setattr(wheeling, "_download", download)
    own = own_wheel(tmp_path)
    target = Target("aarch64", (3, 13), (2, 41))
    (wheel,) = dependency_wheels(own, target, tmp_path)
    for damage in (b"", b"who", b"holes"):
        wheel.path.write_bytes(damage)
        assert dependency_wheels(own, target, tmp_path) == [wheel]
        assert wheel.path.read_bytes() == b"whole"
    (wheel.path.parent / "wheels.json").write_text("[[")
    assert dependency_wheels(own, target, tmp_path) == [wheel]
    assert downloads == [wheel.path.parent] * 5
    own.path.write_bytes(b"damaged")
    assert own_wheel(tmp_path) == own
    # A hostile board may report another platform each time.
    for minor in range(20, 40):
        dependency_wheels(own, replace(target, glibc=(2, minor)), tmp_path)
    assert len(list((tmp_path / "wheels").glob("board-*"))) == 10


def test_platforms_reach_back_from_the_boards_own_library() -> None:
    platforms = Target("aarch64", (3, 11), (2, 28)).platforms
    assert platforms[0] == "manylinux_2_28_aarch64"
    assert "manylinux_2_17_aarch64" in platforms
    assert "manylinux_2_29_aarch64" not in platforms
    assert platforms[-1] == "manylinux2014_aarch64"


@pytest.fixture
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Upload]:
    """Small wheels that replace the real ones, which would be downloaded."""
    made = [make_wheel(tmp_path, name, f"NAME = {name!r}") for name in MODULES]
    own = make_wheel(
        tmp_path,
        "edgekit_cli",
        "",
        {
            "edgekit/__init__.py": "",
            "edgekit/cli/__init__.py": "",
            "edgekit/cli/__main__.py": "import json, sys, numpy\n"
            "print(json.dumps([sys.argv[1:], numpy.NAME, json.load(sys.stdin)]))\n"
            "if sys.argv[1] == 'wait':\n    import time\n    open(sys.argv[2], 'w').close()\n    time.sleep(600)\n",
        },
    )
    monkeypatch.setattr(preparing, "own_wheel", lambda: own)
    monkeypatch.setattr(preparing, "dependency_wheels", lambda *_, **__: made)
    return made


def make_wheel(folder: Path, name: str, code: str, more: dict[str, str] | None = None) -> Upload:
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, content in (more or {f"{name}/__init__.py": code}).items():
            archive.writestr(file, content)
        archive.writestr(f"{name}-1.0.data/purelib/{name}_extra.py", "")
        archive.writestr(f"{name}-1.0.data/scripts/{name}", "#!python\n")
    return pack(path, "wheel")


@pytest.mark.usefixtures("uploads")
def test_a_board_is_prepared_once(connection: Connection, sshd: Sshd) -> None:
    lines: list[str] = []
    found = probe(connection)  # other tests may have left models in the store
    steps: set[str] = set()
    first = prepare(connection, found, notify=lines.append, progress=lambda what, *_: steps.add(what))
    assert first.sent_bytes > 0
    assert lines == ["making an environment", "importing the installed packages"]
    assert "unpacking" in steps
    done = run_edgekit(connection, first, ["bench", "a b", "$(x)"], job={"a 'b'": "$(x)\n`y`"})
    assert json.loads(done.text) == [["bench", "a b", "$(x)"], "numpy", {"a 'b'": "$(x)\n`y`"}]
    # Nothing is sent twice, and the store has the same files as before.
    again = probe(connection)
    assert again.store.complete == found.store.complete
    second = prepare(connection, again)
    assert second == replace(first, sent_bytes=0)
    # The space for models is checked even if the board has everything else.
    with pytest.raises(HostError, match="1 MiB of the board's disk are free, 102 MiB are needed"):
        prepare(connection, replace(again, free_bytes=1 << 20), extra_bytes=2 << 20)
    site = next((sshd.home / ".cache/edgekit/board/envs").glob("*/lib/*/site-packages"))
    assert (site / "numpy_extra.py").exists()
    assert not list(site.rglob("scripts"))

    cache = sshd.home / ".cache/edgekit"
    shutil.rmtree(cache / "ncnn-checked", ignore_errors=True)  # from an edgekit on the board in other tests
    (cache / "yunet.onnx.failed").touch()
    assert clean(connection) > 0
    assert not list(cache.iterdir()), "the folder stays, because a system service may need it"
    for name in ("yunet.onnx", "yunet.onnx.failed"):
        (cache / name).touch()
    assert clean(connection) == 0
    assert [path.name for path in cache.iterdir()] == ["yunet.onnx"]
    shutil.rmtree(cache)


@pytest.mark.usefixtures("uploads")
def test_wheels_that_another_edgekit_has_removed_are_an_error_and_are_sent_again(
    connection: Connection, sshd: Sshd
) -> None:
    def take(what: str, done: float, total: float) -> None:
        if what == "sending edgekit_cli" and done == total:
            for wheel in (sshd.home / ".cache/edgekit/board/store").glob("*.whl"):
                wheel.unlink()

    with pytest.raises(HostError, match="another edgekit"):
        prepare(connection, probe(connection), progress=take)
    ready = prepare(connection, probe(connection))
    assert run_edgekit(connection, ready, ["bench"]).returncode == 0
    clean(connection)


@pytest.mark.usefixtures("uploads")
def test_a_running_edgekit_is_not_cleaned_and_ends_with_the_connection(sshd: Sshd, tmp_path: Path) -> None:
    with Connection(sshd.host()) as other:
        with running_edgekit(sshd, tmp_path), pytest.raises(HostError, match="running edgekit uses the files"):
            clean(other)
        wait_until(lambda: is_cleaned(other))


@contextmanager
def running_edgekit(sshd: Sshd, tmp_path: Path) -> Iterator[EdgekitCommand]:
    """Run edgekit on the board during the block; it ends with its connection."""
    started = tmp_path / "started"
    with Connection(sshd.host()) as working:
        ready = prepare(working, probe(working))

        def work() -> None:
            with pytest.raises(HostError):
                run_edgekit(working, ready, ["wait", str(started)])

        thread = threading.Thread(target=work)
        thread.start()
        wait_until(started.exists)
        yield ready
        working.close()
        thread.join(20)
        assert not thread.is_alive()


def is_cleaned(connection: Connection) -> bool:
    """Clean the board; return False if an edgekit on it has not ended yet."""
    try:
        return clean(connection) > 0
    except HostError:
        return False


def test_other_versions_of_edgekit_do_not_remove_the_code_that_runs(
    sshd: Sshd, uploads: list[Upload], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert uploads
    with Connection(sshd.host()) as other:
        with running_edgekit(sshd, tmp_path) as first:
            made = [first]
            for version in ("b", "c", "d"):
                wheel = make_wheel(tmp_path, version, "")
                monkeypatch.setattr(preparing, "own_wheel", lambda wheel=wheel: wheel)
                made.append(prepare(other, probe(other)))
            kept = [Path(command.code or "").is_dir() for command in made]
        wait_until(lambda: is_cleaned(other))
    assert kept == [True, False, True, True]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "import os, signal\nos.kill(os.getpid(), signal.SIGILL)",
            "importing onnxruntime ended with an illegal instruction",
        ),
        ("raise ImportError('numpy.dtype size changed')", "importing onnxruntime failed: .*size changed"),
    ],
)
def test_an_environment_that_cannot_be_imported_is_not_kept(
    connection: Connection, uploads: list[Upload], tmp_path: Path, sshd: Sshd, code: str, message: str
) -> None:
    (tmp_path / "bad").mkdir()
    uploads[2] = make_wheel(tmp_path / "bad", "onnxruntime", code)
    with pytest.raises(HostError, match=message):
        prepare(connection, probe(connection))
    assert list((sshd.home / ".cache/edgekit/board/envs").iterdir()) == []
    clean(connection)


def test_a_wheel_with_paths_outside_its_folder_is_refused(
    connection: Connection, uploads: list[Upload], tmp_path: Path, sshd: Sshd
) -> None:
    uploads.append(make_wheel(tmp_path, "evil", "", {"../../../../planted": "x"}))
    with pytest.raises(HostError, match="a wheel contains the path"):
        prepare(connection, probe(connection))
    assert not list(sshd.home.rglob("planted"))
    clean(connection)
