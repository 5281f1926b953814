"""`edgekit data`: faces cut out of photographs, quality check of a data set, labelling of collected crops."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.command import Group, subcommand
from edgekit.cli.option_types import PATH
from edgekit.cli.output import Output, TextTable, one_line, picked, progress_bar, updater
from edgekit.device.sinks.web import WebOptions
from edgekit.errors import EdgekitError
from edgekit.models.crop_options import CropOptions
from edgekit.options import Options, option, same_option
from edgekit.shared_options import contempt
from edgekit.text import counted, first_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from edgekit.models.data.check import Findings, Scan
    from edgekit.models.data.crop import CropReport

_EXAMPLES = 5


@click.group("data", cls=Group, short_help="Crop faces from photographs, label crops, check a data set.")
def command() -> None:
    """Prepare a data set: crop photographs, label the crops of `edgekit run --collect`, check the result.

    \b
    Examples:
      edgekit data crop photos -o crops
      edgekit data check fer2013.tar.gz
      edgekit data check RAF-DB/basic
      edgekit data label collected
    """


@subcommand(command, "crop", short_help="Cut faces out of photographs and videos.", options=CropOptions)
@click.argument("photos", type=PATH)
def crop(out: Output, options: CropOptions) -> None:
    """Cut the faces out of PHOTOS: a folder or .tar.gz archive of photographs, or a video.

    A crop has the path of its photograph, so folders of classes and splits are kept. crops.csv lists every photograph,
    with the box of the face or with the reason why there is no crop. Faces are detected and cropped in the same way as
    in `edgekit run`.

    \b
    Examples:
      edgekit data crop photos -o crops
      edgekit data crop photos.tar.gz -o crops --faces single
      edgekit data crop happy.mp4 -o crops/happy --every 0.5
    """
    from edgekit.models.data.crop import crop_photos

    with progress_bar(out) as progress:
        callbacks = {"notify": out.warn, "progress": updater(progress, "cropping faces")}
        report = crop_photos(**vars(options) | callbacks)
    _print_crops(out, report, options.output)
    out.result(
        {
            "photos": str(options.photos),
            "output": str(options.output),
            **picked(report, "detector", "photographs", "crops", "without_face", "several_faces"),
            **picked(report, "unreadable", "per_folder"),
        }
    )


def _print_crops(out: Output, report: CropReport, output: str | Path) -> None:
    """Print how many faces were cropped, per folder, and how many photographs or frames have no crop."""
    images = "photographs" if all(row.time_s is None for row in report.rows) else "frames"  # of a video
    # "." is the folder of crops.csv, with the crops of a video or of photographs without class folders.
    has_subfolders = set(report.per_folder) != {"."}
    folders = f": {_shares(report.per_folder)}" if has_subfolders else ""
    out.fields(
        [
            (images, f"{report.photographs:,}"),
            ("crops", f"{report.crops:,} in {output}{folders}" if report.crops else "none"),
            ("no face", f"{report.without_face:,} {images}"),
            ("several", f"{report.several_faces:,} {images} with more than one face"),
            ("unreadable", _counted(report.unreadable)),
        ]
    )


@dataclass(frozen=True, kw_only=True)
class CheckOptions(Options):
    """What is checked."""

    contempt: str = contempt()


@subcommand(
    command, "check", short_help="Count images, and find damaged, blank and duplicate images.", options=CheckOptions
)
@click.argument("path", type=PATH)
def check(out: Output, path: Path, options: CheckOptions) -> None:
    """Check the data set at PATH, in any format that `train` reads.

    The command prints the number of images per class and split, the sizes and the colours. It also prints unreadable
    and blank images, and identical images within a split, in several splits or with different labels. The exit code is
    1 if there are faults. Identical images with one label within one split are not a fault.

    \b
    Examples:
      edgekit data check fer2013.tar.gz
      edgekit data check CK+48 --contempt keep
      edgekit data check folders --json
    """
    from edgekit.models.data.check import analyse, scan_dataset

    notes: list[str] = []
    try:
        with progress_bar(out) as progress:
            scan = scan_dataset(path, options.contempt, updater(progress, "reading images"), notes.append)
    finally:  # a note may explain an error, such as that of a folder of HEIC images
        for note in notes:
            out.say(f"note: {one_line(note)}")
    findings = analyse(scan)
    out.fields(_report_fields(scan, findings))
    out.show(_counts_table(scan, findings))
    out.result({**_document(scan, findings), "notes": notes})
    if findings.faults:
        raise EdgekitError(f"data '{path}': {'; '.join(findings.faults)}")


@dataclass(frozen=True, kw_only=True)
class LabelOptions(Options):
    """Where labelled crops go, and how the page is served."""

    output: Path | None = option(
        "--output", "Folder of the class folders; default: DIR/labelled.", short="-o", metavar="OUT"
    )
    classes: str | None = option(
        "--classes", "Classes to choose from; default: those of the collecting model.", metavar="A,B,..."
    )
    address: str = same_option(
        WebOptions, "web", default="127.0.0.1:8080", help="Address of the page.", bare=None, metavar="ADDR"
    )
    token_file: Path | None = same_option(WebOptions, "web_token_file", needs=())


@subcommand(command, "label", short_help="Sort collected crops into class folders, in a browser.", options=LabelOptions)
@click.argument("folder", metavar="DIR", type=PATH)
def label(out: Output, folder: Path, options: LabelOptions) -> None:
    """Serve a web page for labelling the crops in DIR with the keyboard. `edgekit run --collect` saves such crops.

    Each decision moves files from DIR to OUT/CLASS/. `train --data OUT` reads the labelled crops. Ctrl-C ends the
    command. The next call continues with the remaining crops.

    \b
    Examples:
      edgekit data label collected
      edgekit data label collected --classes open,closed -o door
      edgekit data label collected --web 0.0.0.0:8080 --web-token-file web-token
    """
    import threading

    from edgekit.cli.signals import StopSignals
    from edgekit.device.label import label_page
    from edgekit.device.label.store import exclusive_store
    from edgekit.device.sink import read_secret

    names = [name.strip() for name in options.classes.split(",")] if options.classes else ()
    with exclusive_store(folder, options.output, names, out.warn) as store:
        token = read_secret(options.token_file, "EDGEKIT_WEB_TOKEN", "web token", out.warn)
        stopped = threading.Event()
        with StopSignals() as signals, label_page(store, options.address, token) as page:
            signals.on_stop(stopped.set)
            out.say(f"label {counted(store.summary()['waiting'], 'crop')} at {page.url} (Ctrl-C ends)")
            while not stopped.wait(timeout=1.0):
                page.check()  # raises an error of the server
    summary = store.summary()
    counts = ", ".join(f"{name} {count}" for name, count in summary["counts"].items())
    out.say(f"labelled in {store.out}: {counts or 'none'}; discarded {summary['discarded']}")
    out.say(f"{summary['waiting']} of {summary['total']} crops wait, {summary['missing']} were deleted")
    if counts:
        out.say(f"next: {store.next_command()}")
    out.result({"folder": str(folder), "output": str(store.out), "url": page.url, **summary})


def _report_fields(scan: Scan, findings: Findings) -> Iterator[tuple[str, str]]:
    """Yield what `data check` has found in a data set, as name and text.

    Identical images are groups: "repeated" within a split, "crossing" in several splits, "conflicting" with different
    labels.
    """
    # A line without a name belongs to the line above.
    yield "data", scan.name
    yield "images", f"{len(scan.records):,}, {findings.distinct:,} distinct"
    yield "size", _shares({f"{width}x{height}": count for (width, height), count in findings.sizes.items()})
    yield "colour", _shares(findings.modes)
    ratio = findings.imbalance
    text = "a class has no image" if ratio is None else f"largest class {ratio:.1f} times the smallest one"
    yield "imbalance", f"{text} in {findings.training}" if findings.training else text
    yield "unreadable", counted(len(findings.unreadable), "image") if findings.unreadable else "none"
    yield from _examples([record.problem or "" for record in findings.unreadable])
    yield "blank", _counted([record.name for record in findings.blank])
    surplus = counted(findings.surplus, "surplus image")
    yield "repeated", f"{counted(len(findings.repeated), 'group')} within a split, {surplus}"
    yield "crossing", f"{counted(len(findings.crossing), 'group')} of identical images in several splits"
    for (first, second), shared in findings.pairs.items():
        yield "", f"{shared:,} in {first} and {second}"
    # With two splits, the line of their pair has this number already.
    if findings.leaking and len(scan.splits) > 2:
        yield "", f"{findings.leaking:,} in {findings.training} and any of the others"
    yield from _examples([first_of([record.name for record in group], _EXAMPLES) for group in findings.crossing])
    yield "conflicting", f"{counted(len(findings.conflicting), 'group')} of identical images with different labels"
    yield from _examples([first_of([record.name for record in group], _EXAMPLES) for group in findings.conflicting])


def _counts_table(scan: Scan, findings: Findings) -> TextTable:
    """Return the number of images per class and split, with their sums."""
    has_sum = len(scan.splits) > 1
    # Per class, the number of images in each split.
    counts = {name: [findings.counts[split][name] for split in scan.splits] for name in scan.classes}
    totals = [sum(column) for column in zip(*counts.values(), strict=True)]
    rows = []
    for name, row in [*counts.items(), ("all", totals)]:
        numbers = [*row, sum(row)] if has_sum else row
        rows.append((name, *(f"{number:,}" for number in numbers)))
    columns = ("class", *scan.splits, "all") if has_sum else ("class", *scan.splits)
    return TextTable(columns, rows, ("class",))


def _document(scan: Scan, findings: Findings) -> dict[str, Any]:
    """Return the document of `data check --json`; see `_report_fields` for the words."""
    return {
        **picked(scan, "name", "classes"),
        **picked(findings, "distinct", "counts", "modes", "imbalance", "faults"),
        "images": len(scan.records),
        "sizes": {f"{width}x{height}": count for (width, height), count in findings.sizes.items()},
        "unreadable": [picked(record, "name", "problem") for record in findings.unreadable],
        "blank": [record.name for record in findings.blank],
        "repeated": {"groups": len(findings.repeated), "surplus": findings.surplus},
        "crossing": {
            "groups": len(findings.crossing),
            "pairs": [{"splits": list(pair), "groups": count} for pair, count in findings.pairs.items()],
            "training": findings.training,  # name of the training split, if there is one
            "groups_with_training": findings.leaking,
            "names": [[record.name for record in group] for group in findings.crossing],
        },
        "conflicting": {
            "groups": len(findings.conflicting),
            "names": [[record.name for record in group] for group in findings.conflicting],
        },
    }


def _examples(texts: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the first texts as further lines of a field."""
    for text in texts[:_EXAMPLES]:
        yield "", text
    if len(texts) > _EXAMPLES:
        yield "", "…"


def _shares(counts: Mapping[str, int]) -> str:
    """Return the first names with their numbers of images, and the number of the other names."""
    if not counts:
        return "unknown: no image is readable"
    most = list(counts.items())[:_EXAMPLES]
    more = len(counts) - len(most)
    return ", ".join(f"{name} ({count:,})" for name, count in most) + (f" and {more:,} others" if more else "")


def _counted(texts: Sequence[str]) -> str:
    """Return the number of texts and the first of them, or "none"."""
    return f"{len(texts):,}: {first_of(texts, _EXAMPLES)}" if texts else "none"
