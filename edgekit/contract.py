"""The model-file contract: one JSON document inside the .onnx that says everything its user must know.

It lives in the model's `metadata_props[METADATA_KEY]`. Export writes it; every other part reads it and asks for no
further flag. The schema's version is `MAJOR.MINOR`: a reader accepts any minor of its major (unknown fields of a later
minor are ignored) and refuses other majors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, cast, get_args

from edgekit.errors import InputError

METADATA_KEY = "edgekit"
SCHEMA_MAJOR = 1
# 1.1 added input.element_type and verified_level.
SCHEMA_VERSION = f"{SCHEMA_MAJOR}.1"

Channels = Literal["rgb", "bgr", "gray"]
ElementType = Literal["float32", "uint8"]
Precision = Literal["float32", "float16", "int8"]
GraphLevel = Literal["none", "basic", "extended", "all"]
OutputMeaning = Literal["logits"]

_MAX_DOCUMENT_CHARS = 1_000_000
# Small inputs are what edgekit is for; a larger claim would take gigabytes to try out.
_MAX_SIDE_PX = 1024
_MAX_LABELS = 100_000
_TINY, _LARGE = 1e-6, 1e6
_POSITIVE = f"{_TINY:g} to {_LARGE:g}"


@dataclass(frozen=True)
class InputSpec:
    """The tensor the net takes: (N, channels, height, width), `(pixel * scale - mean) / std`.

    `channels` is the colour order of the tensor's channels; `mean` and `std` have one value a channel and apply after
    `scale`. With `element_type` "float32" whoever feeds the file does that sum; with "uint8" the file takes pixels as
    they are and does it itself.
    """

    name: str
    size_hw: tuple[int, int]
    channels: Channels
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    layout: str = "NCHW"
    element_type: ElementType = "float32"


@dataclass(frozen=True)
class CropSpec:
    """How a face box becomes a picture of the net's size.

    The box is made square (of its mean side), widened by `margin` (a fraction of that side on every side), kept inside
    the frame, resized to `resize_hw`, made gray if `grayscale` says so, and cut to its centre `center_crop_hw`.
    """

    margin: float
    grayscale: bool
    resize_hw: tuple[int, int]
    center_crop_hw: tuple[int, int]


@dataclass(frozen=True)
class OutputSpec:
    """The tensor the net gives: (N, number of labels)."""

    name: str
    meaning: OutputMeaning = "logits"


@dataclass(frozen=True)
class Accuracy:
    """One measured accuracy: `correct` of `total` images of `split` under `protocol`."""

    dataset: str
    split: str
    protocol: str
    correct: int
    total: int


@dataclass(frozen=True)
class Provenance:
    """Where the weights came from."""

    dataset: str = "unknown"
    checkpoint_sha256: str | None = None
    git_revision: str | None = None
    edgekit_version: str | None = None
    accuracy: tuple[Accuracy, ...] = ()


@dataclass(frozen=True)
class Contract:
    """Everything a runtime must know about a model file; see the classes of its fields.

    `precision` is that of weights and arithmetic, `calibration` says how a quantised file's ranges were found, and
    `verified_level` how far ONNX Runtime rewrote the graph when export checked its answers.
    """

    architecture: str
    labels: tuple[str, ...]
    input: InputSpec
    crop: CropSpec
    output: OutputSpec
    precision: Precision = "float32"
    calibration: str | None = None
    verified_level: GraphLevel | None = None
    provenance: Provenance = field(default_factory=Provenance)
    schema: str = SCHEMA_VERSION

    def __post_init__(self) -> None:
        _validate(self)

    def to_json(self) -> str:
        """Return the document that goes into the model file: sorted keys, so equal contracts are equal bytes."""
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=True, allow_nan=False)

    @classmethod
    def from_json(cls, document: str) -> Contract:
        """Read and validate a contract.

        Raises:
            InputError: The text is no contract, of another major version, lacks a field or has one of a wrong type or
                value. The message names the field.
        """
        if len(document) > _MAX_DOCUMENT_CHARS:
            raise InputError(f"the contract is {len(document)} characters long: more than {_MAX_DOCUMENT_CHARS}")
        try:
            data = json.loads(document)
        except (ValueError, RecursionError) as error:
            raise InputError(f"the contract is not JSON: {error}") from error
        reader = _Reader(data, "")
        _check_version(reader.text("schema"))
        return cls(
            schema=reader.text("schema"),
            architecture=reader.text("architecture"),
            labels=reader.texts("labels"),
            input=_read_input(reader.section("input")),
            crop=_read_crop(reader.section("crop")),
            output=_read_output(reader.section("output")),
            precision=cast(Precision, reader.choice("precision", get_args(Precision))),
            calibration=reader.optional_text("calibration"),
            verified_level=cast(GraphLevel | None, reader.optional_choice("verified_level", get_args(GraphLevel))),
            provenance=_read_provenance(reader.section("provenance")),
        )


def channel_count(channels: Channels) -> int:
    """Return how many channels the tensor of that colour order has."""
    return 1 if channels == "gray" else 3


def required_fields() -> tuple[str, ...]:
    """Return the fields that a model without contract is missing, in the order a message should name them."""
    return ("labels", "input (size, colour order, scale, mean, std)", "crop (margin, resize, centre crop)", "output")


def _check_version(version: str) -> None:
    major, _, minor = version.partition(".")
    if not (major.isascii() and major.isdigit() and minor.isascii() and minor.isdigit()) or len(version) > 20:
        raise InputError(
            f"contract field 'schema' is {_kind(version)}: expected 'MAJOR.MINOR', such as '{SCHEMA_VERSION}'"
        )
    if int(major) != SCHEMA_MAJOR:
        raise InputError(
            f"the model's contract has schema {version}, this edgekit reads {SCHEMA_MAJOR}.x: "
            "update edgekit or export the model again"
        )


def _read_input(reader: _Reader) -> InputSpec:
    return InputSpec(
        name=reader.text("name"),
        size_hw=reader.size("size_hw"),
        channels=cast(Channels, reader.choice("channels", get_args(Channels))),
        scale=reader.number("scale"),
        mean=reader.numbers("mean"),
        std=reader.numbers("std"),
        layout=reader.choice("layout", ("NCHW",)),
        element_type=cast(ElementType, reader.optional_choice("element_type", get_args(ElementType)) or "float32"),
    )


def _read_crop(reader: _Reader) -> CropSpec:
    return CropSpec(
        margin=reader.number("margin"),
        grayscale=reader.flag("grayscale"),
        resize_hw=reader.size("resize_hw"),
        center_crop_hw=reader.size("center_crop_hw"),
    )


def _read_output(reader: _Reader) -> OutputSpec:
    return OutputSpec(
        name=reader.text("name"), meaning=cast(OutputMeaning, reader.choice("meaning", get_args(OutputMeaning)))
    )


def _read_provenance(reader: _Reader) -> Provenance:
    return Provenance(
        dataset=reader.text("dataset"),
        checkpoint_sha256=reader.optional_text("checkpoint_sha256"),
        git_revision=reader.optional_text("git_revision"),
        edgekit_version=reader.optional_text("edgekit_version"),
        accuracy=tuple(
            Accuracy(
                dataset=item.text("dataset"),
                split=item.text("split"),
                protocol=item.text("protocol"),
                correct=item.integer("correct"),
                total=item.integer("total"),
            )
            for item in reader.sections("accuracy")
        ),
    )


def _validate(contract: Contract) -> None:
    labels = contract.labels
    _require(1 <= len(labels) <= _MAX_LABELS, "labels", f"{len(labels)} labels", f"1 to {_MAX_LABELS}")
    _require(len(set(labels)) == len(labels), "labels", "a name twice", "distinct names")
    _require(all(label.strip() for label in labels), "labels", "an empty name", "names")
    _require(all(map(_is_text, labels)), "labels", "half a character (a lone surrogate)", "whole characters")
    spec, crop = contract.input, contract.crop
    channels = channel_count(spec.channels)
    for name, values in (("input.mean", spec.mean), ("input.std", spec.std)):
        _require(len(values) == channels, name, f"{len(values)} values", f"{channels} for '{spec.channels}'")
    # Beyond these float32 overflows on the way to the net.
    _require(all(_TINY <= value <= _LARGE for value in spec.std), "input.std", str(list(spec.std)), _POSITIVE)
    _require(all(abs(value) <= _LARGE for value in spec.mean), "input.mean", str(list(spec.mean)), f"up to {_LARGE:g}")
    _require(_TINY <= spec.scale <= _LARGE, "input.scale", str(spec.scale), _POSITIVE)
    _require(0 <= crop.margin <= 2, "crop.margin", str(crop.margin), "0 to 2")
    _require(spec.channels != "gray" or crop.grayscale, "crop.grayscale", "false", "true for a gray input")
    fits = all(inner <= outer for inner, outer in zip(crop.center_crop_hw, crop.resize_hw, strict=True))
    _require(fits, "crop.center_crop_hw", str(crop.center_crop_hw), f"at most resize_hw {crop.resize_hw}")
    _require(
        crop.center_crop_hw == spec.size_hw, "crop.center_crop_hw", str(crop.center_crop_hw), f"size_hw {spec.size_hw}"
    )
    for result in contract.provenance.accuracy:
        _require(0 <= result.correct <= result.total, "provenance.accuracy", str(result.correct), "correct <= total")


def _is_text(label: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in label)


def _require(condition: bool, name: str, value: str, expected: str) -> None:
    if not condition:
        raise InputError(f"contract field '{name}' has {value}: expected {expected}")


class _Reader:
    """Takes typed fields out of one JSON object and names the field when one is missing or wrong."""

    def __init__(self, data: object, path: str) -> None:
        if not isinstance(data, dict):
            raise InputError(f"contract field '{path or 'document'}' is {_kind(data)}: expected an object")
        self._data: Mapping[str, Any] = data
        self._path = path

    def _name(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key

    def _get(self, key: str) -> Any:
        if key not in self._data:
            raise InputError(f"contract field '{self._name(key)}' is missing")
        return self._data[key]

    def _wrong(self, key: str, value: object, expected: str) -> InputError:
        return InputError(f"contract field '{self._name(key)}' is {_kind(value)}: expected {expected}")

    def text(self, key: str) -> str:
        value = self._get(key)
        if not isinstance(value, str) or not value:
            raise self._wrong(key, value, "a text")
        return value

    def optional_text(self, key: str) -> str | None:
        return None if self._data.get(key) is None else self.text(key)

    def choice(self, key: str, choices: tuple[str, ...]) -> str:
        value = self.text(key)
        if value not in choices:
            raise self._wrong(key, value, f"one of {', '.join(choices)}")
        return value

    def optional_choice(self, key: str, choices: tuple[str, ...]) -> str | None:
        return None if self._data.get(key) is None else self.choice(key, choices)

    def flag(self, key: str) -> bool:
        value = self._get(key)
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def integer(self, key: str) -> int:
        value = self._get(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._wrong(key, value, "a whole number")
        return value

    def number(self, key: str) -> float:
        return self._number(key, self._get(key))

    def _number(self, key: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(key, value, "a finite number")
        try:
            number = float(value)
        except OverflowError:  # a whole number with more digits than a float can hold
            number = math.inf
        if not math.isfinite(number):
            raise self._wrong(key, value, "a finite number")
        return number

    def _list(self, key: str, expected: str) -> list[Any]:
        value = self._get(key)
        if not isinstance(value, list):
            raise self._wrong(key, value, expected)
        return value

    def numbers(self, key: str) -> tuple[float, ...]:
        return tuple(self._number(key, value) for value in self._list(key, "a list of numbers"))

    def texts(self, key: str) -> tuple[str, ...]:
        values = self._list(key, "a list of texts")
        for value in values:
            if not isinstance(value, str):
                raise self._wrong(key, value, "a list of texts")
        return tuple(values)

    def size(self, key: str) -> tuple[int, int]:
        values = self._list(key, "[height, width]")
        if len(values) != 2 or not all(type(value) is int and 1 <= value <= _MAX_SIDE_PX for value in values):
            raise self._wrong(key, values, f"[height, width], each 1 to {_MAX_SIDE_PX}")
        return values[0], values[1]

    def section(self, key: str) -> _Reader:
        return _Reader(self._get(key), self._name(key))

    def sections(self, key: str) -> list[_Reader]:
        values = self._list(key, "a list of objects")
        return [_Reader(value, f"{self._name(key)}[{index}]") for index, value in enumerate(values)]


def _kind(value: object) -> str:
    try:
        text = json.dumps(value, default=str)
    except RecursionError:
        text = f"a deeply nested {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."
