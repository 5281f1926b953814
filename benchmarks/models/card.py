"""(module) Model cards in the format of the Hugging Face hub, and the tables of docs/reference/results.md.

https://huggingface.co/docs/hub/model-cards describes the format, and the field `model-index` of results.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

SPLIT = "PrivateTest"
# The classes of faces in front of a camera that photographs of films have in numbers.
FIELD_CLASSES = ("angry", "happy", "sad", "surprise", "neutral")
# Protocols whose figures are in the front matter, and on the page of the results.
_DECIDING = ("center-crop", "ten-crop", "center-crop, majority among seven classes")
TRAINING, LICENCE = "## Training\n", "## Licence\n"

_PURPOSES = {
    "default": "The model classifies faces in front of a camera, with `edgekit run` on a Raspberry Pi.",
    "fer2013": "The model is for comparisons with other nets on the labels of FER-2013. In front of a camera, use the "
    "model `default`.",
    "distilled": "The model has the predictions of `default`. In addition, `edgekit export --classes` can replace its\n"
    "labels by labels that you describe in text, because the last layer of the model maps faces into the space of a\n"
    "CLIP with prompts. The text tower of this CLIP is shipped beside the model.",
}
_CARD = """{front}
# Model card: {name}

The model `{name}` classifies facial expressions: {label_list}. The net of the model is {architecture}, with
{parameters:,} parameters and {macs:,} multiply-accumulates per image. The ONNX file has {size_bytes:,} bytes.
`benchmarks/models/publish.py` measured all numbers of this card.

## Results

{results}

"Without duplicates" leaves out the images of PrivateTest that are also in another split. For FER+, ten people voted on
each image; expressions with a single vote are ignored. The label is the expression with more than half of the votes.
Images without such a majority are left out. With eight classes (Barsoum et al. 2016), images labelled contempt are
kept, and count as wrong. The calibration error is the mean difference between confidence and accuracy, over 15 bins of
the confidence.

## Intended use

{purpose}

Do not use the model:

- to judge, rank, hire, grade, police or diagnose people,
- to watch people without their consent,
- where a wrong classification harms someone.

## Limits

- The model classifies the expression that a face shows, not what the person feels.
- The training data are pictures from the web of the early 2010s, mostly of light-skinned adults who pose. The accuracy
  on other groups, on children and on faces with masks was not measured.
- The recall of rare classes, above all disgust, can be much lower than the accuracy.

## Data

FER-2013 (Goodfellow et al., ICML 2013 challenge) has gray pictures of 48x48 pixels from a web image search. FER-2013 is
distributed for research, and is not a part of edgekit. The net was trained on the split Training and on the votes of
FER+ (Barsoum et al. 2016). Epochs and calibration were chosen on the split PublicTest. No net was trained on the
photographs. But four settings of `default`, and so of `distilled`, were chosen with the photographs: the label weight,
the nets that are averaged, the logit adjustment, and the threshold of `uncertain`.

## Recall per class

{recall}

## Confidence

{confidence}

## Accuracy by brightness, size and pose

{served}

{training}{licence}
The licence of the weights is MIT, the licence of edgekit. The training data is for research. Check whether the law of
your country permits your use of a model that was trained on this data.
"""


def card(document: Mapping[str, Any], training: str, picture: Path | None, folder: Path) -> str:
    """Return the card of a model.

    Args:
        document: Facts and figures of the model, as `publish.py` puts them together.
        training: The section on the training, from `TRAINING` to `LICENCE`.
        picture: Confusion matrix and calibration on photographs, if it was drawn.
        folder: The card's folder, to which the link to `picture` is relative.
    """
    target = picture and Path(os.path.relpath(picture, folder)).as_posix()
    link = f"\n\n![Confusion matrix and calibration on photographs]({target})" if target else ""
    return _CARD.format(
        **{name: document[name] for name in ("name", "architecture", "parameters", "macs", "size_bytes")},
        front=_front_matter(document),
        label_list=", ".join(document["labels"]),
        results=_results(document),
        purpose=_PURPOSES[document["name"]],
        recall=_recall(document),
        confidence=_confidence(document) + link,
        served=_served(document),
        training=training,
        licence=LICENCE,
    )


def training_section(text: str) -> str:
    """Return the section on the training of a card."""
    return TRAINING + text.partition(TRAINING)[2].partition(LICENCE)[0]


def _measured(document: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    """Yield data, protocol, kind of data and result of each measurement on prepared images."""
    for protocol, result in (document["fer2013"] or {}).items():
        yield f"FER-2013 {SPLIT}", protocol, "fer2013", result
    for protocol, result in (document["ferplus"] or {}).items():
        yield f"FER+ {SPLIT}", f"{protocol}, majority among seven classes", "ferplus", result
        yield f"FER+ {SPLIT}", f"{protocol}, eight classes", "ferplus", result["eight_classes"]


def _front_matter(document: Mapping[str, Any]) -> str:
    lines = ["---", "license: mit", "library_name: edgekit", "pipeline_tag: image-classification"]
    lines += ["tags:", "- onnx", "- facial-expression-recognition", "- raspberry-pi"]
    lines += ["datasets:", "- fer2013", "- ferplus", "metrics:", "- accuracy"]
    entries = [
        (kind, data, "accuracy", f"Accuracy, {protocol}", result["accuracy"])
        for data, protocol, kind, result in _measured(document)
        if protocol in _DECIDING
    ]
    if photos := document["photographs"]:
        entries.append(("photographs", "Photographs", "accuracy", "Accuracy", photos["accuracy"]))
    if entries:
        lines += ["model-index:", f"- name: {document['name']}", "  results:"]
    for kind, data, metric, name, value in entries:
        lines += ["  - task:", "      type: image-classification", "      name: Facial expression recognition"]
        lines += ["    dataset:", f"      type: {kind}", f"      name: {data}", "    metrics:"]
        lines += [f"    - type: {metric}", f"      name: {name}", f"      value: {100 * value:.2f}"]
    return "\n".join([*lines, "---"])


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table; all columns but the first are aligned to the right."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _results(document: Mapping[str, Any]) -> str:
    rows: list[Sequence[object]] = [_row(data, protocol, result) for data, protocol, _, result in _measured(document)]
    rows += [(f"{data} {SPLIT}", "", "not measured", "", "") for data, key in (("FER-2013", "fer2013"),
             ("FER+", "ferplus")) if not document[key]]  # fmt: skip
    end = ""
    if photos := document["photographs"]:
        rows.append(_row("photographs", "all; wrong if no face is detected", photos))
        rows.append(_row("photographs", "those with a detected face", photos["with_face"]))
        classes, recall = ", ".join(photos["recall_of"]), photos["mean_recall_of"]
        end = f"\n\nOn photographs, the mean recall of the classes {classes} is {recall:.2%}."
    else:
        rows.append(("photographs", "", "not measured", "", ""))
    return _table(("data", "protocol", "accuracy", "correct images", "calibration error"), rows) + end


def _row(data: str, protocol: str, result: Mapping[str, Any]) -> Sequence[object]:
    error = f"{result['calibration_error']:.3f}" if "calibration_error" in result else ""
    return data, protocol, f"{result['accuracy']:.2%}", f"{result['correct']} of {result['total']}", error


def _recall(document: Mapping[str, Any]) -> str:
    columns: dict[str, Mapping[str, float | None]] = {}
    for protocol in ("center-crop", "ten-crop") if document["fer2013"] else ():
        columns[f"FER-2013 {protocol}"] = document["fer2013"][protocol]["per_class"]
    if document["ferplus"]:
        columns["FER+ majority"] = document["ferplus"]["center-crop"]["per_class"]
    counts: Mapping[str, int] = {}
    if photos := document["photographs"]:
        columns["photographs"], counts = photos["per_class"], photos["images_per_class"]
    rows = []
    for label in document["labels"] if columns else ():
        shares = [_percent(recalls[label]) for recalls in columns.values()]
        shares[-1] += f" of {counts[label]:,}" if label in counts else ""
        rows.append((label, *shares))
    return _table(("class", *columns), rows) if rows else "Not measured."


def _confidence(document: Mapping[str, Any]) -> str:
    temperature, below = document["temperature"], document["uncertain_below"]
    parts = ["The model is not calibrated."]
    if temperature != 1:
        parts = [
            f"The temperature of the calibration is {temperature:.3f}. The logits (outputs before softmax)\n"
            "of the file are already divided by the temperature."
        ]
    data, result = _distribution(document)
    if result:
        bins = [
            (f"{each['from']:.1f}", f"{each['count']:,}", f"{each['confidence']:.1%}", f"{each['accuracy']:.1%}")
            for each in result["calibration"]
        ]
        points = [
            (f"{each['threshold']:g}", f"{each['coverage']:.1%}", _percent(each["accuracy"]))
            for each in result["risk_coverage"]
        ]
        parts += [
            f"Calibration on {data}:",
            _table(("confidence, lower limit", "images", "mean confidence", "accuracy"), bins),
            f"Accuracy on {data}, if predictions below a threshold are labelled `uncertain`:",
            _table(("threshold", "faces with a label", "accuracy of these faces"), points),
        ]
    effect = "" if below else ", so every face gets a label"
    return "\n\n".join([*parts, f"The threshold of `uncertain` in the model file is {below:g}{effect}."])


def _served(document: Mapping[str, Any]) -> str:
    data, result = _distribution(document)
    if not result:
        return "Not measured."
    recall = f"mean recall of {len(result['recall_of'])} classes" if "recall_of" in result else "mean recall"
    parts = [f"Measured on {data}."]
    for name, found in result["by"].items():
        rows = [
            (
                band["band"],
                f"{band['total']:,}",
                _percent(band["accuracy"]),
                " to ".join(map(_percent, band["interval"] or ())) or "-",
                _percent(band["mean_recall"]),
            )
            for band in found["bands"]
        ]
        parts.append(f"{name.capitalize()} is the {found['measure']}:")
        parts.append(_table((name, "faces", "accuracy", "95 % interval", recall), rows))
    return "\n\n".join(parts)


def _distribution(document: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return the data of the sections on confidence and on properties of faces, and the result on it."""
    if document["photographs"]:
        return "photographs with a detected face", document["photographs"]
    return f"FER-2013 {SPLIT}", document["fer2013_distribution"] if document["fer2013"] else {}


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def results_table(documents: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of docs/reference/results.md: a column per model, a row per measure that decides."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for document in documents:
        name = document["name"]
        for data, protocol, kind, result in _measured(document):
            if protocol in _DECIDING:
                command = "`--data fer2013.tar.gz`" + " `--ferplus ferplus_votes.csv`" * (kind == "ferplus")
                command += " `--protocol ten-crop`" * (protocol == "ten-crop")
                rows.setdefault((f"{data}, {protocol}", command), {})[name] = _right(result)
        if photos := document["photographs"]:
            command = f"`--photos photos.tar --recall-of {','.join(FIELD_CLASSES)}`"
            rows.setdefault(("photographs", command), {})[name] = _right(photos)
            recall = f"{photos['mean_recall_of']:.2%}"
            rows.setdefault(("photographs, mean recall of five classes", ""), {})[name] = recall
    names = [document["name"] for document in documents]
    table = [
        (measure, *(values.get(name, "") for name in names), command) for (measure, command), values in rows.items()
    ]
    return _table(("data, measure", *(f"`{name}`" for name in names), "`edgekit eval MODEL …`"), table) + "\n"


def _right(result: Mapping[str, Any]) -> str:
    return f"{result['accuracy']:.2%} ({result['correct']} of {result['total']})"
