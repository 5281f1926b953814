"""The contract of a model file: a written contract is read back unchanged, and an invalid one is refused."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.contract import (
    SCHEMA_VERSION,
    Accuracy,
    Channels,
    Contract,
    CropSpec,
    DistanceSpec,
    ElementType,
    Fit,
    GraphLevel,
    InputSpec,
    LabelMap,
    OutputSpec,
    Provenance,
    Subject,
    channel_count,
)
from edgekit.errors import InputError
from tests.examples import examples

CONTRACT = Contract(
    architecture="edgecnn",
    labels=("angry", "happy", "neutral"),
    input=InputSpec("input", (44, 44), "rgb", 1 / 255, (0.0,) * 3, (1.0,) * 3),
    crop=CropSpec(margin=0.1, grayscale=True, resize_hw=(48, 48), center_crop_hw=(44, 44)),
    output=OutputSpec("logits"),
    calibration="200 faces",
    provenance=Provenance("faces", "ab" * 32, "1234567", "0.1.0", (Accuracy("faces", "test", "ten-crop", 7, 10),)),
)
# Fields that may be null.
NULLABLE = {
    "calibration",
    "verified_level",
    "region",
    "distance",
    "provenance.checkpoint_sha256",
    "provenance.git_revision",
    "provenance.edgekit_version",
}
# Fields that may be missing: the structures have defaults for them.
OPTIONAL = NULLABLE | {
    "crop.fit",
    "input.element_type",
    "input.layout",
    "input.sizes_px",
    "output.meaning",
    "precision",
    "provenance",
    "provenance.accuracy",
    "provenance.dataset",
    "subject",
    "temperature",
    "uncertain_below",
}


def document() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(CONTRACT.to_json())
    return loaded


def paths(value: object, prefix: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path to every value inside a JSON document."""
    if isinstance(value, dict | list):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield (*prefix, key)
            yield from paths(child, (*prefix, key))


FIELDS = [path for path in paths(document()) if all(isinstance(key, str) for key in path)]


def parent_of(loaded: Any, path: tuple[str | int, ...]) -> Any:
    for key in path[:-1]:
        loaded = loaded[key]
    return loaded


def read(loaded: object) -> Contract:
    return Contract.from_json(json.dumps(loaded))


texts = st.text(min_size=1, max_size=12)
numbers = st.floats(-1e6, 1e6, width=32)
positive = st.floats(min_value=1e-6, max_value=1e6)


@st.composite
def contracts(draw: st.DrawFn) -> Contract:
    channels = draw(st.sampled_from(get_args(Channels)))
    count = channel_count(channels)
    size_hw = draw(st.tuples(st.integers(1, 64), st.integers(1, 64)))
    resize_hw = (size_hw[0] + draw(st.integers(0, 9)), size_hw[1] + draw(st.integers(0, 9)))
    total = draw(st.integers(0, 10_000))
    accuracy = Accuracy(draw(texts), draw(texts), draw(texts), draw(st.integers(0, total)), total)
    optional = st.none() | texts
    return Contract(
        architecture=draw(texts),
        labels=tuple(draw(st.lists(texts.filter(str.strip), min_size=1, max_size=9, unique=True))),
        input=InputSpec(
            name=draw(texts),
            size_hw=size_hw,
            channels=channels,
            scale=draw(positive),
            mean=tuple(draw(st.lists(numbers, min_size=count, max_size=count))),
            std=tuple(draw(st.lists(positive, min_size=count, max_size=count))),
            element_type=draw(st.sampled_from(get_args(ElementType))),
            sizes_px=tuple(draw(st.lists(st.integers(1, 64), max_size=3))),
        ),
        crop=CropSpec(
            draw(st.floats(0, 2)),
            channels == "gray" or draw(st.booleans()),
            resize_hw,
            size_hw,
            draw(st.sampled_from(get_args(Fit))),
        ),
        output=OutputSpec(draw(texts)),
        precision=draw(st.sampled_from(["float32", "float16", "int8"])),
        calibration=draw(optional),
        verified_level=draw(st.none() | st.sampled_from(get_args(GraphLevel))),
        subject=draw(st.sampled_from(get_args(Subject))),
        temperature=draw(st.floats(0.05, 20)),
        uncertain_below=draw(st.floats(0, 1)),
        distance=draw(st.none() | st.builds(DistanceSpec, texts, st.floats(-2, 2))),
        provenance=Provenance(draw(texts), draw(optional), draw(optional), draw(optional), (accuracy,)),
    )


@given(contracts())
def test_every_contract_comes_back_as_it_was_written(contract: Contract) -> None:
    written = contract.to_json()
    assert Contract.from_json(written) == contract
    assert Contract.from_json(written).to_json() == written
    assert written.isascii()


def test_equal_contracts_are_equal_bytes() -> None:
    shuffled = dict(reversed(document().items()))
    assert read(shuffled).to_json() == CONTRACT.to_json()


@pytest.mark.parametrize("path", FIELDS, ids=".".join)
def test_a_missing_field_is_named_unless_it_may_be_missing(path: tuple[str, ...]) -> None:
    loaded = document()
    del parent_of(loaded, path)[path[-1]]
    name = ".".join(path)
    if name in OPTIONAL:
        assert isinstance(read(loaded), Contract)
    else:
        with pytest.raises(InputError, match=rf"^contract field '{name}' is missing$"):
            read(loaded)


def may_have(path: tuple[str, ...], value: object) -> bool:
    """Return whether a field may have one of the values of the following test."""
    name = ".".join(path)
    if value == "x":
        choices = ("schema", "channels", "layout", "meaning", "element_type", "precision", "fit", "subject")
        return isinstance(parent_of(document(), path)[path[-1]], str) and path[-1] not in choices
    if value is None:
        return name in NULLABLE
    if value is True:
        return isinstance(parent_of(document(), path)[path[-1]], bool)
    return (name, value) in (("provenance", {}), ("provenance.accuracy", []), ("input.sizes_px", []))


@pytest.mark.parametrize("value", [None, True, -1, 10**400, 1e999, "", "x", [], [None], {}], ids=repr)
@pytest.mark.parametrize("path", FIELDS, ids=".".join)
def test_a_field_of_a_wrong_type_is_named(path: tuple[str, ...], value: object) -> None:
    loaded = document()
    parent_of(loaded, path)[path[-1]] = value
    if may_have(path, value):
        assert isinstance(read(loaded), Contract)
        return
    name = ".".join(path)
    with pytest.raises(InputError, match=rf"^(contract field '{name}|the contract is not JSON: .*Infinity)") as caught:
        read(loaded)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("labels",), ["a", "b", "a"], "labels' has a duplicate name"),
        (("labels",), ["a", " "], "labels' has an empty name"),
        (("input", "mean"), [0.0], "input.mean' has 1 values: expected 3 for 'rgb'"),
        (("input", "layout"), "NHWC", "input.layout' is wrong: invalid enum value 'NHWC'$"),
        (("input", "size_hw"), [44, 0], r"input.size_hw\[1\]' is wrong: expected `int` >= 1$"),
        (("input", "size_hw"), [40, 44], r"crop.center_crop_hw' has \(44, 44\): expected size_hw \(40, 44\)"),
        (("output", "meaning"), "features", "labels' has 3 labels: expected none"),
        (("crop", "resize_hw"), [48, 40], "crop.center_crop_hw' has"),
    ],
)
def test_a_value_that_cannot_be_is_named(path: tuple[str | int, ...], value: object, message: str) -> None:
    loaded = document()
    parent_of(loaded, path)[path[-1]] = value
    with pytest.raises(InputError, match=message):
        read(loaded)


@pytest.mark.parametrize(
    ("path", "allowed", "refused"),
    [
        (("temperature",), (1e-6, 1e6), (0.0, 1.1e6)),
        (("input", "scale"), (1e-6, 1e6), (0.0, 1.1e6)),
        (("input", "std", 1), (1e-6, 1e6), (0.0, 1.1e6)),
        (("input", "mean", 1), (-1e6, 1e6), (-1.1e6, 1.1e6)),
        (("crop", "margin"), (0.0, 2.0), (-0.1, 2.1)),
        (("uncertain_below",), (0.0, 1.0), (-0.1, 1.1)),
        (("distance", "threshold"), (-1e6, 1e6), (-1.1e6, 1.1e6)),
        (("provenance", "accuracy", 0, "correct"), (0, 10), (-1, 11)),
        (("region", 0), (0.0, 0.4), (-0.1, 0.5)),
        (("region", 1), (0.0, 0.4), (-0.1, 0.5)),
        (("region", 2), (0.3, 1.0), (0.2, 1.1)),
        (("region", 3), (0.3, 1.0), (0.2, 1.1)),
    ],
    ids=lambda each: ".".join(map(str, each)),
)
def test_numbers_have_limits(path: tuple[str | int, ...], allowed: list[float], refused: list[float]) -> None:
    further = {"subject": "image", "region": [0.2, 0.2, 0.5, 0.5], "distance": {"name": "far", "threshold": 0.0}}
    loaded = document() | further
    for value in allowed:
        parent_of(loaded, path)[path[-1]] = value
        assert isinstance(read(loaded), Contract)
    for value in refused:
        parent_of(loaded, path)[path[-1]] = value
        with pytest.raises(InputError, match=str(path[0])):
            read(loaded)


def test_only_whole_images_have_a_region() -> None:
    with pytest.raises(InputError, match="region"):
        replace(CONTRACT, region=(0.0, 0.0, 1.0, 1.0))


@pytest.mark.parametrize(
    "members", [(("x",), ("y",)), (("x",), ("y",), ()), (("x",), ("y",), ("x",))], ids=["few", "none", "twice"]
)
def test_each_label_of_a_label_map_stands_for_classes_of_its_own(members: tuple[tuple[str, ...], ...]) -> None:
    good = LabelMap(CONTRACT.labels, (("x", "z"), ("y",), ("v",)))
    assert read(json.loads(replace(CONTRACT, label_map=good).to_json())).label_map == good
    assert [good.number(name) for name in ("x", "z", "v", "w")] == [0, 0, 2, -1]
    for wrong in (LabelMap(CONTRACT.labels, members), LabelMap(("a", "b", "c"), good.members)):
        with pytest.raises(InputError, match="label_map"):
            replace(CONTRACT, label_map=wrong)


def test_half_a_character_is_no_label() -> None:
    for half in ("\ud800", "\udfff"):
        with pytest.raises(InputError, match="labels"):
            replace(CONTRACT, labels=("a", half))


def test_a_gray_input_requires_gray_crops() -> None:
    gray = InputSpec("input", (44, 44), "gray", 1 / 255, (0.0,), (1.0,))
    with pytest.raises(InputError, match=r"crop\.grayscale"):
        replace(CONTRACT, input=gray, crop=replace(CONTRACT.crop, grayscale=False))
    assert replace(CONTRACT, input=gray).input.channels == "gray"


def test_a_threshold_and_a_label_uncertain_exclude_each_other() -> None:
    own = replace(CONTRACT, labels=("door", "uncertain"))
    assert Contract.from_json(own.to_json()) == own
    with pytest.raises(InputError, match="because the model has a label named 'uncertain'"):
        replace(own, uncertain_below=0.4)
    with pytest.raises(InputError, match="field 'distance' has a threshold: expected none, because the model has a"):
        replace(own, distance=DistanceSpec("distance", 0.5))
    assert read(document() | {"uncertain_below": 0.4}).uncertain_below == 0.4


@pytest.mark.parametrize("version", ["2.0", "0.9", "10.0", "99.1"])
def test_another_major_version_is_refused_before_anything_else_is_read(version: str) -> None:
    with pytest.raises(InputError, match=rf"schema {version}, this edgekit reads 1\.x: update edgekit"):
        read({"schema": version})


@pytest.mark.parametrize(
    "version", ["1", "1.", ".1", "1.x", "v1.0", "1.0.0", " 1.0", "1.0\n", "\u0661.0", "9" * 6000 + ".0"]
)
def test_a_version_that_is_none_is_refused(version: str) -> None:
    with pytest.raises(InputError, match=r"field 'schema' is .*expected 'MAJOR\.MINOR'") as caught:
        read(document() | {"schema": version})
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("version", "later_fields"),
    [
        ("1.0", ("input.element_type", "verified_level", "crop.fit", "subject", "temperature", "uncertain_below")),
        ("1.1", ("crop.fit", "subject", "temperature", "uncertain_below")),
    ],
)
def test_an_earlier_version_is_read_with_the_meaning_that_it_had(version: str, later_fields: tuple[str, ...]) -> None:
    loaded = document() | {"schema": version}
    for name in later_fields:
        path = tuple(name.split("."))
        del parent_of(loaded, path)[path[-1]]
    contract = read(loaded)
    assert (contract.subject, contract.crop.fit) == ("face", "square")
    assert (contract.temperature, contract.uncertain_below) == (1.0, 0.0)
    assert replace(contract, schema=SCHEMA_VERSION) == CONTRACT


def test_a_later_minor_version_with_fields_unknown_here_is_read() -> None:
    loaded = document() | {"schema": "1.7", "novelty": {"deep": [1, 2]}}
    loaded["input"]["novelty"] = 3
    loaded["provenance"]["accuracy"][0]["novelty"] = None
    contract = read(loaded)
    assert replace(contract, schema=SCHEMA_VERSION) == CONTRACT


@pytest.mark.parametrize("text", ["", "no json", "[", "\x00", "nul", '{"schema": "1.0",}', "[" * 100_000])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="the contract is not JSON"):
        Contract.from_json(text)


def test_a_document_that_is_too_long_is_not_parsed() -> None:
    with pytest.raises(InputError, match="has 1000003 characters: more than"):
        Contract.from_json('"' + "x" * 1_000_001 + '"')


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=8,
)


@settings(max_examples=examples(300))
@given(st.sampled_from(list(paths(document()))), anything)
def test_a_valid_document_with_anything_anywhere_is_read_or_refused(path: tuple[str | int, ...], value: object) -> None:
    loaded = copy.deepcopy(document())
    parent_of(loaded, path)[path[-1]] = value
    try:
        contract = read(loaded)
    except InputError as caught:
        refusal = str(caught)
    else:
        refusal = "contract field '"
        assert math.isfinite(contract.input.scale)
        assert Contract.from_json(contract.to_json()) == contract
    assert refusal.startswith(("contract field '", "the model's contract has schema", "the contract is not JSON"))
    assert len(refusal) < 400
