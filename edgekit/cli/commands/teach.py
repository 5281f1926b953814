"""`edgekit teach`: a classifier of own things from a folder of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.command import command as edgekit_command
from edgekit.cli.options import PATH
from edgekit.cli.output import Output, TextTable
from edgekit.device.teach.options import TeachOptions

if TYPE_CHECKING:
    from edgekit.device.teach.teach import Taught

_CONFUSIONS = 3


@edgekit_command("teach", short_help="Teach your own things from a few pictures, in seconds.", options=TeachOptions)
@click.argument("pictures", type=PATH)
def command(out: Output, pictures: Path, options: TeachOptions) -> None:
    """Teach a model the classes of PICTURES: a folder with a folder or a video per class. No torch is needed.

    The pretrained model `backbone` computes the features of each picture, and a classifier is fitted on them. The
    accuracy is measured on pictures that are held back in turn. Pictures of one recording are held back together: those
    of a video, of a folder in a class folder, or of one time. A picture unlike everything taught gets the label
    "uncertain".

    With --subject face, crops of faces are taught states of your own, such as "eyes closed". It does not recognise
    persons.

    \b
    Examples:
      edgekit teach pictures -o my.onnx
      edgekit teach pictures -o my.onnx --image-size 224
      edgekit teach collected -o door.onnx --json
      edgekit teach faces -o eyes.onnx --subject face
    """
    from edgekit.cli.progress import by_stage, progress_bar
    from edgekit.device.teach.teach import teach

    with progress_bar(out) as bars:
        taught = teach(pictures, **{**vars(options), "progress": by_stage(bars), "notify": out.warn})
    _show(out, taught)
    out.result(_document(taught))


def _show(out: Output, taught: Taught) -> None:
    held_back = taught.fit.held_back
    rows = []
    for number, (label, count) in enumerate(taught.counts.items()):
        right = held_back.correct[held_back.labels == number].mean()
        rows.append((label, f"{count}", f"{taught.recordings[label]}", f"{right:.0%}"))
    accuracy, (low, high) = f"{taught.accuracy:.1%} of {len(held_back.labels)} held-back pictures", taught.interval
    confusions = [f"{a} taken for {b} ({count})" for a, b, count in held_back.confusions(taught.fit.classes)]
    out.show(TextTable(("class", "pictures", "recordings", "right"), rows, {"class"}))
    out.fields(
        [
            (
                "accuracy",
                f"{accuracy} ({low:.0%} to {high:.0%})",
            ),
            ("confused", ", ".join(confusions[:_CONFUSIONS]) or "none"),
            ("with twice", None if taught.with_twice is None else f"the pictures about {taught.with_twice:.0%}"),
            ("written", f"{taught.path}, {taught.path.stat().st_size / 1e6:.1f} MB, verified"),
        ]
    )
    if taught.contract.subject == "face":
        out.say("The model classifies states of faces. It does not recognise persons.")
    out.say(f"next: edgekit run --camera --model {taught.path} --web", indent=None)


def _document(taught: Taught) -> dict[str, Any]:
    fit = taught.fit
    return {
        "model": str(taught.path),
        "classes": [
            {"label": label, "pictures": count, "recordings": taught.recordings[label]}
            for label, count in taught.counts.items()
        ],
        "accuracy": taught.accuracy,
        "interval": list(taught.interval),
        "confusions": [
            {"label": label, "predicted": predicted, "pictures": count}
            for label, predicted, count in fit.held_back.confusions(fit.classes)
        ],
        "accuracy_with_twice": taught.with_twice,
        "image_size_px": taught.contract.input.size_hw[0],
        "strength": fit.strength,
        "temperature": fit.temperature,
        "distance_threshold": fit.threshold,
    }
