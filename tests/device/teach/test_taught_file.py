"""The file of a taught model beside the model of a release: which one a run begins with."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from edgekit.device.teach.taught_file import TaughtFile
from edgekit.errors import InputError, StorageError


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "release.onnx"
    path.write_bytes(b"release 1")
    return path


def teach(file: TaughtFile, content: bytes) -> None:
    file.store(lambda path: path.write_bytes(content))


def test_a_run_begins_with_the_taught_model_until_another_one_is_deployed(base: Path, tmp_path: Path) -> None:
    file = TaughtFile(tmp_path / "state" / "taught.onnx", base)
    assert file.current == base
    file.path.parent.mkdir()
    teach(file, b"taught")
    assert TaughtFile(file.path, base).current == file.path, "after a restart"
    base.write_bytes(b"release 2")
    deployed = TaughtFile(file.path, base)
    assert (deployed.current, deployed.has_before) == (base, False)
    assert file.path.read_bytes() == b"taught", "the file stays"
    base.write_bytes(b"release 1")
    assert TaughtFile(file.path, base).current == file.path, "after a rollback"


def test_one_step_back_and_forward_again(base: Path, tmp_path: Path) -> None:
    file = TaughtFile(tmp_path / "taught.onnx", base)
    with pytest.raises(InputError):
        file.exchange()
    teach(file, b"one")
    file.exchange()
    assert (file.current, TaughtFile(file.path, base).current) == (base, base)
    file.exchange()
    assert file.current.read_bytes() == b"one"
    teach(file, b"two")
    file.exchange()
    assert file.current.read_bytes() == b"one"
    file.exchange()
    assert file.current.read_bytes() == b"two"


@pytest.mark.parametrize(
    "has_one", [True, False], ids=["between two taught models", "between a taught one and the base"]
)
def test_a_power_cut_between_any_two_steps_of_going_back_loses_no_model(
    has_one: bool, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PowerCut(BaseException):
        pass

    rename = Path.replace
    before = [b"one", b"two"] if has_one else [b"two"]
    for steps in range(3):
        folder = tmp_path / str(steps)
        file = TaughtFile(folder / "taught.onnx", base)
        for content in before:
            teach(file, content)
        left = [steps]

        def cut(path: Path, target: Path, left: list[int] = left) -> Path:
            if not left[0]:
                raise PowerCut
            left[0] -= 1
            return rename(path, target)

        with monkeypatch.context() as patched, suppress(PowerCut):
            patched.setattr(Path, "replace", cut)
            file.exchange()
        restarted = TaughtFile(file.path, base)
        found = set()
        for _ in range(2):
            found.add(restarted.current.read_bytes())
            restarted.exchange()
        assert found == {b"two", b"one" if has_one else b"release 1"}


def test_a_model_that_cannot_be_written_leaves_the_one_in_use(base: Path, tmp_path: Path) -> None:
    file = TaughtFile(tmp_path / "taught.onnx", base)
    teach(file, b"one")

    def fail(_: Path) -> None:
        raise OSError("disk full")

    with pytest.raises(StorageError):
        file.store(fail)
    assert TaughtFile(file.path, base).current.read_bytes() == b"one"


@pytest.mark.parametrize("is_for_any", [True, False])
def test_a_model_of_another_origin_is_never_lost(is_for_any: bool, base: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.onnx"
    own.write_bytes(b"own")
    for run in range(3):  # each one begins with a new object
        file = TaughtFile(own, base, is_for_any=is_for_any)
        teach(file, b"one of run %d" % run)
        teach(file, b"two of run %d" % run)
        file.exchange()
    kept = [path.read_bytes() for path in tmp_path.glob("own-original-*.onnx")]
    assert kept == [b"own"], "and no taught model"
