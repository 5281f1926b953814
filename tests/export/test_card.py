"""`export --card`: the files for the Hugging Face Hub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from edgekit.contract import Contract
from edgekit.device.engines.engine import contract_in
from edgekit.errors import InputError
from edgekit.export.card import check_card, write_card
from edgekit.export.run import export
from edgekit.model_store import asset


def test_the_hub_reads_the_card_of_an_export(tmp_path: Path) -> None:
    exported = export("fer2013", tmp_path / "mine.onnx", card=True)
    card = ModelCard.load(tmp_path / "README.md")
    front = card.data.to_dict()
    assert (front["library_name"], front["pipeline_tag"]) == ("edgekit", "image-classification")
    assert ", ".join(exported.contract.labels) in card.text


def test_the_card_has_the_measured_accuracies(tmp_path: Path) -> None:
    contract = contract_in(asset("default.onnx"))
    write_card(tmp_path / 'a "quoted": name.onnx', contract)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.model_name == 'a "quoted": name'
    results = {
        (each.dataset_name, each.dataset_split, each.metric_name): each.metric_value for each in card.data.eval_results
    }
    for each in contract.provenance.accuracy:
        key = each.dataset, each.split, f"Accuracy, {each.protocol}"
        assert results[key] == pytest.approx(100 * each.correct / each.total, abs=0.005)


def test_labels_and_preprocessing_are_those_of_the_contract(tmp_path: Path) -> None:
    contract = contract_in(asset("default.onnx"))
    write_card(tmp_path / "a.onnx", contract)
    config = json.loads((tmp_path / "config.json").read_text())
    assert [config["id2label"][str(number)] for number in range(7)] == list(contract.labels)
    assert config["label2id"] == {label: number for number, label in enumerate(contract.labels)}
    preprocessing = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert preprocessing["size"] == {"height": 48, "width": 48}
    assert preprocessing["crop_size"] == {"height": 44, "width": 44}
    assert (preprocessing["do_grayscale"], preprocessing["rescale_factor"]) == (True, pytest.approx(1 / 255))


def test_a_card_replaces_another_card_but_no_file_of_the_user(tmp_path: Path) -> None:
    contract: Contract = contract_in(asset("default.onnx"))
    file = tmp_path / "a.onnx"
    write_card(file, contract)
    check_card(file)
    (tmp_path / "README.md").write_text("# My project")
    with pytest.raises(InputError, match=r"README\.md"):
        export("fer2013", file, card=True)
    (tmp_path / "README.md").unlink()
    with pytest.raises(InputError, match=r"config\.json"):
        check_card(file)
    assert not file.exists()
