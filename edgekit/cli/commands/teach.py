"""`edgekit teach`: a classifier of own things from a folder of pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.command import command as edgekit_command
from edgekit.cli.option_types import PATH
from edgekit.cli.output import Output, TextTable, by_stage, progress_bar
from edgekit.device.pipeline import StreamOptions
from edgekit.device.sinks.web import WebOptions
from edgekit.device.teach import TeachOptions
from edgekit.errors import InputError
from edgekit.options import Options, same_option

if TYPE_CHECKING:
    from edgekit.device.teach.taught_file import TaughtFile
    from edgekit.device.teach.teach import Taught

_CONFUSIONS = 3


@dataclass(frozen=True, kw_only=True)
class LiveOptions(Options):
    """A camera instead of pictures, and the page on which the user teaches."""

    title = "In the browser"

    camera: str | None = same_option(StreamOptions, "camera", section=None)
    source: str | None = same_option(
        StreamOptions,
        "source",
        section=None,
        help="Instead of a camera: a video file, which is repeated, or the address of a stream.",
    )
    web: str = same_option(WebOptions, "web", default="127.0.0.1:8080", needs=("--camera", "--source"))
    web_token_file: Path | None = same_option(WebOptions, "web_token_file", needs=("--camera", "--source"))


@edgekit_command(
    "teach",
    short_help="Teach your own things from a few pictures, in seconds.",
    options=TeachOptions,
    live=LiveOptions,
)
@click.argument("pictures", type=PATH, required=False)
def command(out: Output, pictures: Path | None, options: TeachOptions, live: LiveOptions) -> None:
    """Teach a model the classes of PICTURES: a folder with a folder or a video per class. No torch is needed.

    The pretrained model `backbone` computes the features of each picture, and a classifier is fitted on them. The
    command also prints an accuracy, for which each picture is classified once by a classifier that was fitted without
    it. Pictures of one recording are left out together, because they resemble each other: those of a video, of a folder
    in a class folder, or taken within a minute of each other. A picture unlike everything taught gets the label
    "uncertain".

    With --camera instead of PICTURES, the command serves a page on which you record the pictures: hold a button for
    each thing. "Use it" on the page starts to classify with the taught model. Ctrl-C ends the command.

    With --subject face, the pictures are crops of faces, and the classes are states such as "eyes closed". Such a model
    does not recognise persons.

    \b
    Examples:
      edgekit teach pictures -o my.onnx
      edgekit teach pictures -o my.onnx --image-size 224
      edgekit teach collected -o door.onnx --json
      edgekit teach faces -o eyes.onnx --subject face
      edgekit teach --camera -o my.onnx
      edgekit teach --camera -o my.onnx --web 0.0.0.0:8080 --web-token-file web-token
    """
    is_live = live.camera is not None or live.source is not None
    if is_live == (pictures is not None):  # both, or neither
        raise click.UsageError("give either PICTURES or a camera: edgekit teach --camera -o my.onnx")
    if pictures is None:
        _teach_live(out, options, live)
        return
    from edgekit.device.teach.teach import teach

    with progress_bar(out) as bars:
        taught = teach(pictures, **vars(options) | {"progress": by_stage(bars), "notify": out.warn})
    _show(out, taught)
    out.result(_document(taught))


def _teach_live(out: Output, options: TeachOptions, live: LiveOptions) -> None:
    """Run with a camera, and the tab for teaching on the page; if the model file exists, the run begins with it."""
    from edgekit.cli.run_stream import run_stream
    from edgekit.device.engines.engine import contract_in
    from edgekit.device.sinks.teach import TeachTabOptions
    from edgekit.device.sources.settings import CameraSettings
    from edgekit.device.teach.taught_file import TaughtFile
    from edgekit.device.teach.write import check_output, write_untaught

    if options.output is None:
        raise click.UsageError("the name of the model file is missing: -o FILE.onnx")
    output = Path(options.output)
    check_output(output)
    outputs = (
        TeachTabOptions(teach=output, teach_size_px=options.image_size_px),
        WebOptions(web=live.web, web_token_file=live.web_token_file),
    )
    with TemporaryDirectory() as folder:
        base = Path(folder) / "untaught.onnx"
        write_untaught(base, options.subject)  # the model of the run until a taught one is used
        stream = StreamOptions(
            source=live.source,
            camera=live.camera,
            realtime=live.source is not None and "://" not in live.source,  # a video file, at its own frame rate
            repeat=live.source is not None,
            model=base,
            threads=options.threads,
        )
        taught = TaughtFile(output, base, is_for_any=True)  # an existing file is used, whatever it was taught from
        if options.subject == "face" and contract_in(taught.current).subject != "face":
            raise InputError(f"'{output}' was taught whole images: give another name with -o, or leave --subject out")
        changed_before_ns = _changed_ns(output)
        try:
            run_stream(out, stream, CameraSettings(), outputs, taught)
        except KeyboardInterrupt:
            _show_end(out, taught, is_changed=_changed_ns(output) != changed_before_ns)
            raise
        _show_end(out, taught, is_changed=_changed_ns(output) != changed_before_ns)


def _changed_ns(path: Path) -> int | None:
    """Return the time of a file's last change in nanoseconds; None if there is no file."""
    return path.stat().st_mtime_ns if path.is_file() else None


def _show_end(out: Output, taught: TaughtFile, is_changed: bool) -> None:
    """Print which files the user of the page has made, and the next command.

    `taught.is_used`: a taught model is in use, maybe one of an earlier run. `is_changed`: the model file was changed in
    this run, or moved away by "Go back" on the page.
    """
    pictures = f"; the pictures are in {taught.pictures}" if taught.pictures.is_dir() else ""
    if is_changed and taught.is_used:
        out.say(f"written {taught.path}{pictures}")
    else:
        out.say(f"nothing used: press 'Use it' on the page to write {taught.path}{pictures}")
    if taught.is_used:
        out.say(f"next: edgekit run --camera --model {taught.path} --web", indent=None)


def _show(out: Output, taught: Taught) -> None:
    """Print accuracy per class and in all, confused classes, the file and the next command."""
    held_back = taught.fit.held_back
    rows = []
    for index, (label, count) in enumerate(taught.counts.items()):
        # `labels` has the class of each held-back picture as an index, `correct` whether it was predicted.
        right = held_back.correct[held_back.labels == index].mean()
        rows.append((label, f"{count}", f"{taught.recordings[label]}", f"{right:.0%}"))
    found = held_back.confusions(taught.fit.classes)
    confusions = [f"{label} taken for {predicted} ({count})" for label, predicted, count in found]
    low, high = taught.interval
    accuracy = f"{taught.accuracy:.1%} of {len(held_back.labels)} held-back pictures ({low:.0%} to {high:.0%})"
    out.show(TextTable(("class", "pictures", "recordings", "right"), rows, text={"class"}))
    out.fields(
        [
            ("accuracy", accuracy),
            ("confused", ", ".join(confusions[:_CONFUSIONS]) or "none"),
            ("written", f"{taught.path}, {taught.path.stat().st_size / 1e6:.1f} MB, verified"),
        ]
    )
    if taught.with_twice is not None:  # the accuracy to expect with twice the pictures
        out.say(f"expected with twice the pictures: about {100 * taught.with_twice:.0f} %")
    if taught.contract.subject == "face":
        out.say("The model classifies states of faces. It does not recognise persons.")
    out.say(f"next: edgekit run --camera --model {taught.path} --web", indent=None)


def _document(taught: Taught) -> dict[str, Any]:
    """Return the document of --json."""
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
        "accuracy_with_twice": taught.with_twice,  # expected with twice the pictures; None if there are too few
        "image_size_px": taught.contract.input.size_hw[0],  # of a square
        "strength": fit.strength,
        "temperature": fit.temperature,
        "distance_threshold": fit.threshold,
    }
