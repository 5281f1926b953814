"""Model cards in the format of the Hugging Face hub: YAML front matter, then Markdown.

https://huggingface.co/docs/hub/model-cards describes the format, and the field `model-index` of results.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgekit.errors import InputError
from edgekit.export.publish.measure import PROTOCOLS, SPLIT
from edgekit.export.publish.training_text import training_section

_PURPOSES = {
    "default": "The model classifies faces in front of a camera, with `edgekit run` on a Raspberry Pi.",
    "fer2013": "The model is for comparisons with other nets on the labels of FER-2013. In front of a camera, use the "
    "model `default`.",
    "distilled": "The model has the predictions of `default`. In addition, `edgekit export --classes` replaces its\n"
    "labels by new labels that are described in text, because its last layer maps faces into the space of a CLIP with\n"
    "prompts. The export needs the files of the CLIP and of its prompts, which are not shipped with edgekit.",
}

_PHOTO_CHOICES = """
But four settings of `default` were chosen with the photographs: the label weight, the nets of the averages, the logit
adjustment, and the threshold of `uncertain`."""

_VOTES = """The training also used FER+ (Barsoum et al. 2016), the votes of ten people for each of these images.
"""

_CARD = """{front}
# Model card: {name}

The model `{name}` classifies facial expressions: {label_list}. The net of the model is {architecture}, with
{parameters:,} parameters and {macs:,} multiply-accumulates per image. The ONNX file has {size_bytes:,} bytes.
`python -m edgekit.export.publish` wrote this card and measured all its numbers.

## Results

{results}

In videos, a device uses the protocol center-crop. In pictures, it uses center-flip, which averages the probabilities of
the centre crop and its mirror image. "Without duplicates" leaves out the images of {split} that are identical to an
image of another split. For each image, FER+ has the votes of ten people. Choices with a single vote are
ignored. The label is the expression with more than half of the other votes. Images without such a label are left out.
The usual protocol with eight classes (Barsoum et al. 2016) also includes images with this majority for contempt. The
net has no class contempt, so such images count as wrong. In photographs, edgekit first detects and crops the faces. The
calibration error is the mean difference between confidence and accuracy, over 15 bins of the confidence.

## Intended use

{purpose}

Do not use the model

- to judge, rank, hire, grade, police or diagnose people,
- to watch people without their consent,
- or where a wrong classification harms someone.

## Limits

- The model classifies the expression that a face shows, not what the person feels.
- The training data are pictures from the web of the early 2010s. Most of the pictures show light-skinned adults who
  pose and look at the camera. The accuracy on other groups, on children and on faces with masks was not measured.
- The tables of accuracy by brightness, size and pose below show which faces are classified less accurately. Nothing
  is derived about the person.
- The recall of classes that are rare in the training data, above all disgust, can be much lower than the accuracy.

## Data

FER-2013 (Goodfellow et al., ICML 2013 challenge) has gray pictures of 48x48 pixels from a web image search. The
pictures were labelled by people, and other people disagree with about a third of the labels. FER-2013 is distributed
for research, and is not a part of edgekit.

The net was trained on the split Training of FER-2013 (data set `{data_name}`, sha256 of the content `{data_sha256}`).
{votes}{epoch} The accuracy was measured on {split}. The photographs were not used in the training.{photo_choices}

The licence of FER-2013 does not permit its pictures in this card. To see the errors with the highest confidence, run
`edgekit eval {name} --data fer2013.tar.gz --errors out/errors`.

## Recall per class

{recall}

## Confidence

{confidence}

## Accuracy by brightness, size and pose

{served}

{training}
## Licence

The licence of the weights is MIT, the licence of edgekit. The training data is for research. Check whether the law of
your country permits your use of a model that was trained on this data.
"""


def training_facts(name: str, training: Mapping[str, Any]) -> dict[str, str]:
    """Return the parts of the card of the model `name` that come from the record of its training.

    Raises:
        InputError: The record lacks a field, or a field has another type.
    """
    try:
        return {
            "data_name": training["data_name"],
            "data_sha256": training["data_sha256"],
            "epoch": _epoch(training),
            "training": training_section(name, training),
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        field = f"field {error} is missing" if isinstance(error, KeyError) else str(error)
        raise InputError(
            f"the checkpoint's record of its training is incomplete or damaged ({field}): publish a checkpoint of "
            "'edgekit train', 'edgekit distill' or 'edgekit average --data'"
        ) from error


def card(document: Mapping[str, Any], training: Mapping[str, Any], picture: Path | None, folder: Path) -> str:
    """Return the card of a model.

    Args:
        document: Facts and figures of the model, as `edgekit.export.publish.run` puts them together.
        training: The record of the checkpoint.
        picture: Confusion matrix and calibration on photographs, if it was drawn.
        folder: The card's folder, to which the link to `picture` is relative.

    Raises:
        InputError: As `training_facts`.
    """
    link = ""
    if picture is not None:
        target = Path(os.path.relpath(picture, folder)).as_posix()
        link = f"\n\n![Confusion matrix and calibration on photographs]({target})"
    return _CARD.format(
        **{name: document[name] for name in ("name", "architecture", "parameters", "macs", "size_bytes")},
        **training_facts(document["name"], training),
        front=_front_matter(document, training),
        label_list=", ".join(document["labels"]),
        results=_results(document),
        split=SPLIT,
        purpose=_PURPOSES[document["name"]],
        votes=_VOTES if _used_votes(training) else "",
        photo_choices="" if document["name"] == "fer2013" else _PHOTO_CHOICES,
        recall=_recall(document),
        confidence=_confidence(document) + link,
        served=_served(document),
    )


def _epoch(training: Mapping[str, Any]) -> str:
    if "embedded" in training:
        return "The calibration is that of NET (see Training)."
    if "average_of" in training:
        return f"The calibration was fitted on {training['validation']}."
    if training["recipe"].get("keep") == "last":
        return f"The last epoch was saved. The calibration was fitted on {training['validation']}."
    return f"The saved epoch was chosen on {training['validation']}."


def _used_votes(training: Mapping[str, Any]) -> bool:
    return "ferplus_sha256" in training.get("embedded", {}).get("training", training)


def _front_matter(document: Mapping[str, Any], training: Mapping[str, Any]) -> str:
    lines = ["---", "license: mit", "library_name: edgekit", "pipeline_tag: image-classification"]
    lines += ["tags:", *(f"- {tag}" for tag in ("onnx", "facial-expression-recognition", "raspberry-pi"))]
    lines += [
        "datasets:",
        "- fer2013",
        *(["- ferplus"] if _used_votes(training) else []),
        "metrics:",
        "- accuracy",
    ]
    results = list(_index(document))
    if results:
        lines += ["model-index:", f"- name: {document['name']}", "  results:"]
        for dataset, kind, name, value in results:
            lines += [
                "  - task:",
                "      type: image-classification",
                "      name: Facial expression recognition",
                "    dataset:",
                f"      type: {kind}",
                f"      name: {dataset}",
                "    metrics:",
                "    - type: accuracy" if "recall" not in name else "    - type: recall",
                f"      name: {name}",
                f"      value: {100 * value:.2f}",
            ]
    return "\n".join([*lines, "---"])


def _index(document: Mapping[str, Any]) -> Iterator[tuple[str, str, str, float]]:
    """Yield name and type of the data, name of the figure, and the figure, 0..1."""
    for protocol, result in (document["fer2013"] or {}).items():
        yield f"FER-2013 {SPLIT}", "fer2013", f"Accuracy, {protocol}", result["accuracy"]
    for protocol, result in (document["ferplus"] or {}).items():
        eight = result["eight_classes"]["accuracy"]
        yield f"FER+ {SPLIT}", "ferplus", f"Accuracy, {protocol}, majority among seven classes", result["accuracy"]
        yield f"FER+ {SPLIT}", "ferplus", f"Accuracy, {protocol}, eight-class protocol", eight
    if photos := document["photographs"]:
        yield "Photographs", "photographs", "Accuracy", photos["accuracy"]
        yield "Photographs", "photographs", "Mean recall of five classes", photos["mean_recall_of"]


def _results(document: Mapping[str, Any]) -> str:
    lines = ["| data | protocol | accuracy | correct images | calibration error |", "| --- | --- | --- | --- | --- |"]
    gap = "| | not measured | | |"
    if fer2013 := document["fer2013"]:
        lines += [_result(f"FER-2013 {SPLIT}", protocol, result) for protocol, result in fer2013.items()]
    else:
        lines.append(f"| FER-2013 {SPLIT} {gap}")
    if document["ferplus"] is None:
        lines.append(f"| FER+ {SPLIT} {gap}")
    for protocol, result in (document["ferplus"] or {}).items():
        lines.append(_result(f"FER+ {SPLIT}", f"{protocol}, majority among seven classes", result))
        lines.append(_result(f"FER+ {SPLIT}", f"{protocol}, eight classes", result["eight_classes"]))
    if photos := document["photographs"]:
        lines.append(_result("photographs", "all; wrong if no face is detected", photos))
        lines.append(_result("photographs", "those with a detected face", photos["with_face"]))
        classes, recall = ", ".join(photos["recall_of"]), photos["mean_recall_of"]
        lines += ["", f"On photographs, the mean recall of the classes {classes} is {recall:.2%}."]
    else:
        lines.append(f"| photographs {gap}")
    return "\n".join(lines)


def _result(data: str, protocol: str, result: Mapping[str, Any]) -> str:
    error = f"{result['calibration_error']:.3f}" if "calibration_error" in result else ""
    return f"| {data} | {protocol} | {result['accuracy']:.2%} | {result['correct']} of {result['total']} | {error} |"


def _recall(document: Mapping[str, Any]) -> str:
    columns: dict[str, Mapping[str, float | None]] = {}
    for protocol in PROTOCOLS:
        if document["fer2013"]:
            columns[f"FER-2013 {protocol}"] = document["fer2013"][protocol]["per_class"]
    if document["ferplus"]:
        columns["FER+ majority"] = document["ferplus"]["center-crop"]["per_class"]
    counts = {}
    if photos := document["photographs"]:
        columns["photographs"], counts = photos["per_class"], photos["images_per_class"]
    if not columns:
        return "Not measured."
    lines = [f"| class | {' | '.join(columns)} |", f"| --- {'| ---: ' * len(columns)}|"]
    for label in document["labels"]:
        shares = [_percent(recalls[label]) for recalls in columns.values()]
        if label in counts:
            shares[-1] += f" of {counts[label]:,}"
        lines.append(f"| {label} | {' | '.join(shares)} |")
    return "\n".join(lines)


def _confidence(document: Mapping[str, Any]) -> str:
    temperature = document["temperature"]
    parts = [
        "The model is not calibrated."
        if temperature == 1
        else f"The temperature of the calibration is {temperature:.3f}. The logits (outputs before softmax)\n"
        "of the file are already divided by the temperature."
    ]
    for data, result in _distributions(document):
        calibration = "\n".join(
            f"| {row['from']:.1f} | {row['count']:,} | {row['confidence']:.1%} | {row['accuracy']:.1%} |"
            for row in result["calibration"]
        )
        risk = "\n".join(
            f"| {row['threshold']:g} | {row['coverage']:.1%} | {_percent(row['accuracy'])} |"
            for row in result["risk_coverage"]
        )
        parts.append(f"""Calibration on {data}:

| confidence, lower limit | images | mean confidence | accuracy |
| ---: | ---: | ---: | ---: |
{calibration}

Accuracy on {data}, if predictions below a threshold are labelled `uncertain`:

| threshold | images that are not `uncertain` | accuracy of these images |
| ---: | ---: | ---: |
{risk}""")
    below = document["uncertain_below"]
    effect = "" if below else ": every face gets a label"
    parts.append(f"The threshold of `uncertain` in the model file is {below:g}{effect}.")
    return "\n\n".join(parts)


def _served(document: Mapping[str, Any]) -> str:
    parts = []
    for data, result in _distributions(document):
        recall = f"mean recall of {len(result['recall_of'])} classes" if "recall_of" in result else "mean recall"
        for name, breakdown in result["by"].items():
            rows = "\n".join(
                f"| {band['band']} | {band['total']:,} | {_percent(band['accuracy'])} | {_interval(band)} "
                f"| {_percent(band['mean_recall'])} |"
                for band in breakdown["bands"]
            )
            parts.append(f"""Accuracy on {data}, by {name} (the {breakdown["measure"]}):

| {name} | faces | accuracy | 95 % interval of the accuracy | {recall} |
| --- | ---: | ---: | ---: | ---: |
{rows}""")
    return "\n\n".join(parts) or "Not measured."


def _distributions(document: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if document["photographs"]:
        yield "photographs with a detected face", document["photographs"]
    if document["fer2013"]:
        yield f"FER-2013 {SPLIT}", document["fer2013_distribution"]


def _interval(band: Mapping[str, Any]) -> str:
    return "-" if band["interval"] is None else f"{band['interval'][0]:.1%} to {band['interval'][1]:.1%}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
