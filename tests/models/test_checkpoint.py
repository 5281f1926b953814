"""Checkpoints are read back unchanged; files that are no checkpoints raise a one-line error."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edgekit.errors import InputError
from edgekit.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgekit.models.data import EXPRESSIONS
from edgekit.models.model_loading import build_net, contract_for, import_authors_checkpoint
from edgekit.models.nets.registry import create_model
from tests.authors_file import save_as_authors


def make_checkpoint(architecture: str = "edgecnn", labels: tuple[str, ...] = EXPRESSIONS) -> Checkpoint:
    torch.manual_seed(0)
    net = create_model(architecture, len(labels))
    return Checkpoint(contract_for(architecture, labels, "made up", gray=True), net.state_dict(), {"seed": 3})


def test_checkpoint_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    original = make_checkpoint()
    save_checkpoint(tmp_path / "a.safetensors", original)
    loaded = load_checkpoint(tmp_path / "a.safetensors")
    assert loaded.contract == original.contract
    assert loaded.training == original.training
    for name, tensor in build_net(loaded).state_dict().items():
        assert torch.equal(tensor, original.state[name])


def test_equal_checkpoints_are_equal_bytes(tmp_path: Path) -> None:
    contents = set()
    for index in range(8):
        path = tmp_path / f"{index}.safetensors"
        save_checkpoint(path, make_checkpoint())
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_a_truncated_file_and_one_of_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, make_checkpoint())
    for content in (path.read_bytes()[:-1000], b"hello, this is text\n"):
        path.write_bytes(content)
        with pytest.raises(InputError, match="is not a safetensors file"):
            load_checkpoint(path)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    good = make_checkpoint()
    state = good.state | {"classifier.bias": torch.full((7,), torch.nan)}
    save_checkpoint(path := tmp_path / "a.safetensors", Checkpoint(good.contract, state))
    with pytest.raises(InputError, match=r"tensor 'classifier\.bias'"):
        load_checkpoint(path)


def test_safetensors_without_contract_is_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="no edgekit contract"):
        load_checkpoint(tmp_path / "a.safetensors")


def test_weights_of_another_architecture_are_refused_by_name() -> None:
    wide = make_checkpoint("edgecnn-wide")
    mixed = Checkpoint(make_checkpoint().contract, wide.state)
    with pytest.raises(InputError, match=r"do not fit edgecnn: tensor '\S+' has shape"):
        build_net(mixed)


class _RunsCode:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {os.environ['EDGEKIT_TEST_MARK']}",)


def test_a_pickle_with_code_is_refused_and_the_code_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "ran"
    monkeypatch.setenv("EDGEKIT_TEST_MARK", str(mark))
    torch.save({"net": _RunsCode()}, tmp_path / "zip.t7")
    (tmp_path / "old.t7").write_bytes(pickle.dumps({"net": _RunsCode()}))
    for name in ("zip.t7", "old.t7"):
        with pytest.raises(InputError, match=r"does not execute|cannot be read"):
            import_authors_checkpoint(tmp_path / name, EXPRESSIONS, "x", gray=True)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"net": {"fc.weight": torch.zeros(7, 3)}}, "not a checkpoint of EdgeCNN"),
        ({"weights": {}}, "no dense tensors under 'net'"),
        ([1, 2], "contains a list"),
    ],
)
def test_other_torch_files_are_refused(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "other.t7")
    with pytest.raises(InputError, match=message):
        import_authors_checkpoint(tmp_path / "other.t7", EXPRESSIONS, "x", gray=True)


def test_importing_with_a_wrong_number_of_labels_is_refused(tmp_path: Path) -> None:
    path = save_as_authors(tmp_path / "authors.t7", create_model("edgecnn", 7))
    with pytest.raises(InputError, match="7 classes, but 2 labels"):
        import_authors_checkpoint(path, ("a", "b"), "x", gray=True)
