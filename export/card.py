"""`edgekit export --card`: the files with which the Hugging Face Hub presents a model.

https://huggingface.co/docs/hub/model-cards describes the card, a README.md that begins with YAML.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgekit.contract import Accuracy, Contract
from edgekit.errors import InputError
from edgekit.files import write_atomic

_CARD, _CONFIG, _PREPROCESSING = "README.md", "config.json", "preprocessor_config.json"
_MARK = "library_name: edgekit"
_TEXT = """{front}
# {file.stem}

The model classifies {subject}: {labels}. Its net is {contract.architecture}, in {contract.precision}, trained on \
{contract.provenance.dataset}.

```
pip install "edgekit-pi[device]"
edgekit run --source demo --model {file.name}
```

## Input

The input `{spec.name}` has the shape (N, {channels}, {spec.size_hw[0]}, {spec.size_hw[1]}), type {spec.element_type} \
and colour order {spec.channels}. {crop}
It is resized to {resized}{gray}, and its centre is cut out. {normalisation}`{preprocessing}` has these values, too.

## Accuracy

{accuracy}

## Intended use and limits

Describe who may use the model for what, on which pictures it was not measured, and its licence.
"""


def check_card(file: Path) -> None:
    """Check that the three files of a card can be written beside `file`; only those of an older card are replaced.

    Raises:
        InputError: The folder has a README.md, config.json or preprocessor_config.json that is not of a card.
    """
    card = file.with_name(_CARD)
    has_older_card = card.exists() and _MARK in card.read_text(errors="replace")
    for path in (card, file.with_name(_CONFIG), file.with_name(_PREPROCESSING)):
        if path.exists() and not has_older_card:
            raise InputError(f"'{path}' is not of a model card: write the model to a folder of its own")


def write_card(file: Path, contract: Contract) -> None:
    """Write README.md, config.json and preprocessor_config.json beside a model file, from its contract.

    Raises:
        StorageError: A file cannot be written.
    """
    config = {
        "model_type": contract.architecture,
        "num_labels": len(contract.labels),
        "id2label": {str(number): label for number, label in enumerate(contract.labels)},
        "label2id": {label: number for number, label in enumerate(contract.labels)},
    }
    write_atomic(file.with_name(_CARD), _card(file, contract).encode())
    write_atomic(file.with_name(_CONFIG), _json(config))
    write_atomic(file.with_name(_PREPROCESSING), _json(_preprocessing(contract)))


def _preprocessing(contract: Contract) -> dict[str, Any]:
    """Return the content of preprocessor_config.json, with the keys of transformers.

    The file describes how a crop is preprocessed. transformers has no keys that describe how a face is cropped.
    """
    spec, crop = contract.input, contract.crop
    is_normalised = spec.element_type == "float32"  # a uint8 model normalises the pixels in its graph
    return {
        "do_resize": True,
        "size": dict(zip(("height", "width"), crop.resize_hw, strict=True)),
        "do_center_crop": True,
        "crop_size": dict(zip(("height", "width"), crop.center_crop_hw, strict=True)),
        "do_grayscale": crop.grayscale,
        "do_flip_channel_order": spec.channels == "bgr",
        "do_rescale": is_normalised,
        "rescale_factor": spec.scale,
        "do_normalize": is_normalised,
        "image_mean": list(spec.mean),
        "image_std": list(spec.std),
    }


def _card(file: Path, contract: Contract) -> str:
    """Return the text of the card, README.md: the template `_TEXT` with the values of the contract."""
    spec, crop = contract.input, contract.crop
    measured = contract.provenance.accuracy
    accuracy_lines = [
        f"- {each.correct / each.total:.2%} ({each.correct} of {each.total}) on {each.dataset} {each.split}, "
        f"{each.protocol}"
        for each in measured
    ]
    if spec.element_type == "float32":
        normalisation = f"The tensor is `(pixel * {spec.scale:g} - {list(spec.mean)}) / {list(spec.std)}`. "
    else:
        normalisation = "The file normalises the pixels. "
    return _TEXT.format(
        front=_front_matter(file, measured),
        file=file,
        contract=contract,
        spec=spec,
        subject="faces" if contract.subject == "face" else "whole images",
        labels=", ".join(contract.labels),
        channels=len(spec.mean),
        crop=_crop_sentence(contract),
        resized="x".join(map(str, crop.resize_hw)),
        gray=", made gray" if crop.grayscale else "",
        normalisation=normalisation,
        preprocessing=_PREPROCESSING,
        accuracy="\n".join(accuracy_lines) or "Not measured.",
    )


def _crop_sentence(contract: Contract) -> str:
    """Return the sentence of the card about the part of an image that the model receives."""
    if contract.subject == "face":
        return f"A square around the box of a face, widened by {contract.crop.margin:.0%} on every side, is cut out."
    ways = {"square": "cut to its central square", "pad": "padded to a square", "stretch": "stretched"}
    return f"An image is {ways[contract.crop.fit]}."


def _front_matter(file: Path, measured: tuple[Accuracy, ...]) -> str:
    """Return the YAML at the beginning of the card: tags, and the measured accuracies in the Hub's `model-index`.

    Texts are quoted as JSON strings, which YAML can read.
    """
    # `check_card` finds the mark in an older card, which may be replaced.
    lines = ["---", _MARK, "pipeline_tag: image-classification", "tags:", f"- {file.suffix[1:]}", "- raspberry-pi"]
    if measured:
        lines += ["metrics:", "- accuracy", "model-index:", f"- name: {json.dumps(file.stem)}", "  results:"]
    for each in measured:
        dataset, split = json.dumps(each.dataset), json.dumps(each.split)
        title = json.dumps(f"Accuracy, {each.protocol}")
        lines += ["  - task:", "      type: image-classification"]
        lines += ["    dataset:", f"      type: {dataset}", f"      name: {dataset}", f"      split: {split}"]
        lines += ["    metrics:", "    - type: accuracy", f"      name: {title}"]
        lines += [f"      value: {100 * each.correct / each.total:.2f}"]
    return "\n".join([*lines, "---"])


def _json(document: dict[str, Any]) -> bytes:
    """Return the content of a JSON file."""
    return (json.dumps(document, indent=2) + "\n").encode()
