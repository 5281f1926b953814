"""Class descriptions: the shipped ones, those of a file, and the template for all other classes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekit.errors import InputError
from edgekit.models.clip.descriptions import SHIPPED, descriptions_for, read_descriptions
from edgekit.models.clip.load import FrozenClip
from edgekit.models.data import EXPRESSIONS


def test_the_seven_expressions_are_described(small_clip: FrozenClip) -> None:
    table = read_descriptions(SHIPPED)
    assert set(table) == set(EXPRESSIONS)
    everything = [sentence for sentences in table.values() for sentence in sentences]
    assert min(map(len, table.values())) >= 8
    assert len(set(everything)) == len(everything)
    small_clip.tokenize(everything)


def test_descriptions_come_in_the_order_of_the_classes() -> None:
    messages: list[str] = []
    found = descriptions_for(("Sad", "happy"), notify=messages.append)
    assert list(found) == ["Sad", "happy"]
    assert found["Sad"] == read_descriptions(SHIPPED)["sad"]
    assert messages == []


def test_classes_of_a_file_and_the_template_for_the_rest(tmp_path: Path) -> None:
    file = tmp_path / "animals.json"
    file.write_text(json.dumps({"polar bear": ["A white bear.", "A bear on ice."]}))
    messages: list[str] = []
    found = descriptions_for(("polar_bear", "guinea_pig", "cat"), file, messages.append)
    assert found == {
        "polar_bear": ("A white bear.", "A bear on ice."),
        "guinea_pig": ("a photo of a guinea pig.",),
        "cat": ("a photo of a cat.",),
    }
    assert messages == ["no description of guinea_pig, cat: the template 'a photo of a {}.' is used instead"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not valid JSON: Expecting value"),
        ("[]", "expected {"),
        ('{"a": "sentence"}', "class 'a' needs a list"),
        ('{"a": ["b"], "a": ["c"]}', "class 'a' occurs twice"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        descriptions_for(("a",), file)
    assert str(file) in str(caught.value)


def test_an_equal_name_comes_before_one_in_other_case(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('{"crane": ["a bird"], "Crane": ["a machine"]}')
    assert descriptions_for(("crane", "CRANE"), file) == {"crane": ("a bird",), "CRANE": ("a machine",)}


def test_a_folder_has_a_file_per_data_set(tmp_path: Path) -> None:
    (tmp_path / "DescribableTextures.json").write_text(json.dumps({"banded": ["Parallel stripes."]}))
    (tmp_path / "pets.json").write_text(json.dumps({"banded": ["A banded mongoose."]}))
    assert descriptions_for(("banded",), tmp_path, dataset="DescribableTextures") == {"banded": ("Parallel stripes.",)}
    assert descriptions_for(("banded",), tmp_path, dataset="pets") == {"banded": ("A banded mongoose.",)}
    with pytest.raises(InputError, match=r"no file for data set 'UCF101': add UCF101\.json"):
        descriptions_for(("banded",), tmp_path, dataset="UCF101")
