"""The model-file contract: one JSON document inside the .onnx with everything that a program needs to use the model.

The document is stored in the model's `metadata_props[METADATA_KEY]`. Export writes it; all other parts of edgekit read
it and need no further options. The schema's version is `MAJOR.MINOR`. A reader accepts every minor version of its own
major version, ignoring unknown fields, and rejects other major versions.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta

from edgekit.errors import InputError
from edgekit.typed_json import convert, parse_json, shown

METADATA_KEY = "edgekit"
SCHEMA_MAJOR = 1
# 1.1 added input.element_type and verified_level; 1.2 crop.fit, subject, temperature and uncertain_below; 1.3
# output.meaning "features", input.sizes_px, region, distance and label_map.
SCHEMA_VERSION = f"{SCHEMA_MAJOR}.3"

Channels: TypeAlias = Literal["rgb", "bgr", "gray"]
ElementType: TypeAlias = Literal["float32", "uint8"]
Precision: TypeAlias = Literal["float32", "float16", "int8"]
GraphLevel: TypeAlias = Literal["none", "basic", "extended", "all"]
# Features have no labels: such a model is for `edgekit teach`, which adds a classifier.
OutputMeaning: TypeAlias = Literal["logits", "features"]
# How an image that is not a face box becomes square: its central square, padded with gray, or stretched.
Fit: TypeAlias = Literal["square", "pad", "stretch"]
# What the model classifies: each detected face, or the whole image.
Subject: TypeAlias = Literal["face", "image"]

_MAX_DOCUMENT_CHARS = 1_000_000
_MAX_LABELS = 100_000
# The label of a face or image whose largest probability is below `Contract.uncertain_below`.
UNCERTAIN = "uncertain"
# Beyond these, float32 overflows in the preprocessing.
_MIN_FACTOR, _MAX_FACTOR = 1e-6, 1e6
_FACTORS = f"{_MIN_FACTOR:g} to {_MAX_FACTOR:g}"

_Text: TypeAlias = Annotated[str, Meta(min_length=1)]
# edgekit is for small inputs; allocating the buffers of a larger one could take gigabytes.
_SidePx: TypeAlias = Annotated[int, Meta(ge=1, le=1024)]


@dataclass(frozen=True)
class InputSpec:
    """The net's input tensor, (N, channels, height, width): `(pixel * scale - mean) / std`.

    `channels` is the colour order of the tensor's channels; `mean` and `std` have one value per channel and apply after
    `scale`. If `element_type` is "float32", the caller normalizes the pixels. If `element_type` is "uint8", the model
    receives raw pixels and normalizes them. `sizes_px` has the sides of square inputs that the graph accepts besides
    `size_hw`; it is empty for a graph of one size.
    """

    name: _Text
    size_hw: tuple[_SidePx, _SidePx]
    channels: Channels
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    layout: Literal["NCHW"] = "NCHW"
    element_type: ElementType = "float32"
    sizes_px: tuple[_SidePx, ...] = ()


@dataclass(frozen=True)
class CropSpec:
    """How a face box, or an image without one, becomes an image of the net's input size.

    A face box becomes a square whose side is the mean of the box's sides. The square is widened by `margin`, a fraction
    of its side, on every side. The square is kept inside the frame. An image without a face box is cut, padded or
    stretched according to `fit`. The result is resized to `resize_hw`. If `grayscale` is true, it is converted to gray.
    At the end it is cut to its centre `center_crop_hw`.
    """

    margin: float
    grayscale: bool
    resize_hw: tuple[_SidePx, _SidePx]
    center_crop_hw: tuple[_SidePx, _SidePx]
    fit: Fit = "square"


@dataclass(frozen=True)
class OutputSpec:
    """The net's output tensor: (N, number of labels), or (N, number of features)."""

    name: _Text
    meaning: OutputMeaning = "logits"


@dataclass(frozen=True)
class DistanceSpec:
    """A second output, (N,): how unlike the pictures of its classes the model finds a picture.

    A picture whose distance exceeds `threshold` gets the label "uncertain".
    """

    name: _Text
    threshold: float


@dataclass(frozen=True)
class LabelMap:
    """The classes of the data that each label stands for, such as "good" for the classes "happy" and "surprise".

    `members` has the classes of each of `labels`. Classes that are in no label are removed from data and nets.
    """

    labels: tuple[_Text, ...]
    members: tuple[tuple[_Text, ...], ...]

    @property
    def old(self) -> tuple[str, ...]:
        """All classes that stand in a label, in the order of the labels."""
        return tuple(name for group in self.members for name in group)

    def after(self, before: LabelMap) -> LabelMap:
        """Return the map that has the effect of `before` and then of this map.

        The classes of this map are the labels of `before`. The result maps the classes of `before` to the labels of
        this map.
        """
        classes_of = dict(zip(before.labels, before.members, strict=True))
        members = []
        for group in self.members:
            members.append(tuple(name for label in group for name in classes_of[label]))
        return LabelMap(self.labels, tuple(members))

    def number(self, name: str) -> int:
        """Return the index of the label that stands for class `name`; -1 if there is none."""
        return next((index for index, group in enumerate(self.members) if name in group), -1)


@dataclass(frozen=True)
class Accuracy:
    """One measured accuracy: `correct` of `total` images of `split` under `protocol`."""

    dataset: _Text
    split: _Text
    protocol: _Text
    correct: int
    total: int


@dataclass(frozen=True)
class Provenance:
    """Origin of the weights."""

    dataset: _Text = "unknown"
    checkpoint_sha256: _Text | None = None
    git_revision: _Text | None = None
    edgekit_version: _Text | None = None
    accuracy: tuple[Accuracy, ...] = ()


@dataclass(frozen=True)
class Contract:
    """Description of a model file for the runtime; see the classes of its fields.

    `precision` is the number format of weights and arithmetic. `calibration` describes how the ranges of a quantised
    model were determined. `verified_level` is the graph optimization level of ONNX Runtime with which the export
    verified the outputs. `subject` is what the model classifies. `temperature` is the factor of temperature scaling
    (Guo et al. 2017, section 4.2), fitted on validation images; 1 means not calibrated. The file's logits are already
    divided by `temperature`. A face or image whose largest probability is below `uncertain_below` gets the label
    "uncertain"; 0 means no threshold. `region` is the part of a camera's frame that a model of whole images looks at:
    left, top, right and bottom as fractions; None means the whole frame. `distance` is an output for pictures that show
    none of the labels. `label_map` has the classes of the data that merged or renamed labels stand for.

    Example:
        >>> contract = Contract.from_json(model_metadata["edgekit"])
        >>> contract.input.size_hw, contract.labels[0]
        ((44, 44), 'angry')
    """

    architecture: _Text
    labels: tuple[str, ...]
    input: InputSpec
    crop: CropSpec
    output: OutputSpec
    precision: Precision = "float32"
    calibration: _Text | None = None
    verified_level: GraphLevel | None = None
    subject: Subject = "face"
    temperature: float = 1.0
    uncertain_below: float = 0.0
    region: tuple[float, float, float, float] | None = None
    distance: DistanceSpec | None = None
    label_map: LabelMap | None = None
    provenance: Provenance = field(default_factory=Provenance)
    schema: str = SCHEMA_VERSION

    def __post_init__(self) -> None:
        _validate(self)

    def to_json(self) -> str:
        """Return the document for the model file; its keys are sorted, so that equal contracts have equal bytes."""
        document = asdict(self)
        if self.label_map is None:  # files of models without it keep the bytes that older versions wrote
            del document["label_map"]
        return json.dumps(document, sort_keys=True, ensure_ascii=True, allow_nan=False)

    @classmethod
    def from_json(cls, document: str) -> Contract:
        """Return the contract of a document, validated.

        Raises:
            InputError: The text is not a contract, has another major version, lacks a field or has a field of a wrong
                type or value. The message names the field.
        """
        if len(document) > _MAX_DOCUMENT_CHARS:
            raise InputError(f"the contract has {len(document)} characters: more than {_MAX_DOCUMENT_CHARS}")
        data = parse_json(document, "the contract")
        _check_version(data)
        return convert(data, cls, "contract field")  # `__post_init__` checks what the types do not express


def channel_count(channels: Channels) -> int:
    """Return the number of channels of a tensor with the colour order `channels`."""
    return 1 if channels == "gray" else 3


def required_fields() -> tuple[str, ...]:
    """Return the required parts of a contract, in the order in which messages list them."""
    return ("labels", "input (size, colour order, scale, mean, std)", "crop (margin, resize, centre crop)", "output")


def _check_version(data: object) -> None:
    """Check the schema version before all other fields, because another major version may have different fields."""
    version = convert(data, _Version, "contract field").schema
    match = re.fullmatch(r"([0-9]{1,9})\.[0-9]{1,9}", version)
    if match is None:
        raise InputError(
            f"contract field 'schema' is {shown(version)}: expected 'MAJOR.MINOR', such as '{SCHEMA_VERSION}'"
        )
    if int(match[1]) != SCHEMA_MAJOR:
        raise InputError(
            f"the model's contract has schema {version}, this edgekit reads {SCHEMA_MAJOR}.x: "
            "update edgekit or export the model again"
        )


@dataclass(frozen=True)
class _Version:
    schema: str


def _validate(contract: Contract) -> None:
    """Check the ranges and the relations between fields, which the field types do not express."""
    _check_labels(contract)
    _check_input(contract.input, contract.crop)
    in_range = _MIN_FACTOR <= contract.temperature <= _MAX_FACTOR
    _require(in_range, "temperature", str(contract.temperature), _FACTORS)
    _check_uncertain(contract)
    if contract.label_map is not None:
        mapped = contract.label_map
        has_classes = len(mapped.members) == len(mapped.labels) and all(mapped.members)
        is_distinct = len(set(mapped.old)) == len(mapped.old)  # the classes of all labels
        is_of_labels = mapped.labels == contract.labels and has_classes and is_distinct
        _require(is_of_labels, "label_map", str(mapped.labels), "distinct classes for each label")
    if contract.region is not None:
        x0, y0, x1, y1 = contract.region
        is_inside = contract.subject == "image" and 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1
        _require(is_inside, "region", str(contract.region), "fractions x0 < x1 and y0 < y1, for subject 'image'")
    for result in contract.provenance.accuracy:
        _require(0 <= result.correct <= result.total, "provenance.accuracy", shown(result.correct), "correct <= total")


def _check_labels(contract: Contract) -> None:
    """Check number and names of the labels; a model whose output is features has none."""
    labels = contract.labels
    if contract.output.meaning == "features":
        _require(not labels, "labels", f"{len(labels)} labels", "none, because the output is features")
    else:
        _require(1 <= len(labels) <= _MAX_LABELS, "labels", f"{len(labels)} labels", f"1 to {_MAX_LABELS}")
    _require(len(set(labels)) == len(labels), "labels", "a duplicate name", "distinct names")
    _require(all(label.strip() for label in labels), "labels", "an empty name", "names")
    _require(all(map(_is_text, labels)), "labels", "a lone surrogate", "whole characters")


def _check_input(spec: InputSpec, crop: CropSpec) -> None:
    """Check the numbers of normalisation and crop, and that the crop has the size and the colour of the input.

    NaN is refused, because each comparison with it is false.
    """
    channels = channel_count(spec.channels)
    for name, values in (("input.mean", spec.mean), ("input.std", spec.std)):
        _require(len(values) == channels, name, f"{len(values)} values", f"{channels} for '{spec.channels}'")
    in_range = all(_MIN_FACTOR <= value <= _MAX_FACTOR for value in spec.std)
    _require(in_range, "input.std", str(list(spec.std)), _FACTORS)
    in_range = all(abs(value) <= _MAX_FACTOR for value in spec.mean)
    _require(in_range, "input.mean", str(list(spec.mean)), f"at most {_MAX_FACTOR:g}")
    _require(_MIN_FACTOR <= spec.scale <= _MAX_FACTOR, "input.scale", str(spec.scale), _FACTORS)
    _require(0 <= crop.margin <= 2, "crop.margin", str(crop.margin), "0 to 2")
    _require(spec.channels != "gray" or crop.grayscale, "crop.grayscale", "false", "true for a gray input")
    fits = all(inner <= outer for inner, outer in zip(crop.center_crop_hw, crop.resize_hw, strict=True))
    _require(fits, "crop.center_crop_hw", str(crop.center_crop_hw), f"at most resize_hw {crop.resize_hw}")
    has_input_size = crop.center_crop_hw == spec.size_hw
    _require(has_input_size, "crop.center_crop_hw", str(crop.center_crop_hw), f"size_hw {spec.size_hw}")


def _check_uncertain(contract: Contract) -> None:
    """Check the two reasons for the label "uncertain": a low probability, and a large distance."""
    below, distance = contract.uncertain_below, contract.distance
    _require(0 <= below <= 1, "uncertain_below", str(below), "0 to 1")
    if UNCERTAIN in contract.labels:  # a class with the same label as an uncertain face or image
        expected = f"none, because the model has a label named '{UNCERTAIN}'"
        _require(below == 0, "uncertain_below", str(below), expected)
        _require(distance is None, "distance", "a threshold", expected)
    if distance is not None:
        in_range = abs(distance.threshold) <= _MAX_FACTOR
        _require(in_range, "distance.threshold", str(distance.threshold), f"at most {_MAX_FACTOR:g}")


def _is_text(label: str) -> bool:
    """Return whether a label has no lone surrogate, which is half of a character and cannot be encoded."""
    return not any("\ud800" <= char <= "\udfff" for char in label)


def _require(condition: bool, name: str, value: str, expected: str) -> None:
    """Raise the error of field `name` unless `condition` is true."""
    if not condition:
        raise InputError(f"contract field '{name}' has {value}: expected {expected}")
