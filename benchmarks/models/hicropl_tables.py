"""The tables of HiCroPL's paper (arXiv 2507.14976), measured again with CoOp's splits, beside the paper's figures.

\b
    python benchmarks/models/hicropl_tables.py base-to-novel --clip ViT-B-16.pt --data DATA --descriptions gpt_file
    python benchmarks/models/hicropl_tables.py few-shot --clip ViT-B-16.pt --data DATA --descriptions gpt_file
    python benchmarks/models/hicropl_tables.py cross-dataset --clip ViT-B-16.pt --data DATA --descriptions gpt_file
    python benchmarks/models/hicropl_tables.py domain --clip ViT-B-16.pt --data DATA --descriptions gpt_file
    python benchmarks/models/hicropl_tables.py base-to-novel --plan

DATA has the data sets in the folders of CoOp's DATASETS.md, `gpt_file` the descriptions of the authors' repository, one
JSON file per data set (one file for all data sets is read too).

Each training has three seeds and the paper's settings, with 40 epochs in batches of 128 for base to novel on ImageNet.
It writes one file of results; the command started again continues after the last finished epoch, and writes
TABLE.md of all finished results. The row CLIP has CoOp's sentence of each data set.

The sampled images differ from the authors'. Their released code also keeps the best epoch on the validation images for
few images, crops whole pictures, and drops partial batches. `--plan` prints an estimate of the duration and stops.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from data_identity import data_identity
from hicropl_data import (
    IMAGENET,
    TABLES,
    Run,
    named_descriptions,
    peta_operations,
    planned,
    require_data,
    source_of,
    template_accuracies,
)
from hicropl_report import write_table

from edgekit.errors import EdgekitError, InputError
from edgekit.files import write_atomic
from edgekit.models.clip.load import load_clip
from edgekit.models.clip.protocols import epochs_of
from edgekit.models.clip.train_prompts import train_prompts
from edgekit.models.torch_threads import set_torch_threads
from edgekit.models.training.recipes import RECIPES

_IMAGENET_BASE_TO_NOVEL = (40, 128)


@dataclass(frozen=True)
class Settings:
    """Settings that all results of a table share, besides the authors' settings; None: the authors' value."""

    clip: str
    descriptions: str | None
    precision: str
    epochs: int | None = None


def epochs_and_batch(run: Run, epochs: int | None) -> tuple[int, int]:
    """Return the authors' numbers of epochs and of images per batch; `epochs` replaces the former."""
    own = (epochs_of(run.table), RECIPES["hicropl"].batch_size)  # type: ignore[arg-type]
    if run.table == "base-to-novel" and run.dataset == IMAGENET:
        own = _IMAGENET_BASE_TO_NOVEL
    return epochs or own[0], own[1]


def options_of(run: Run, settings: Settings, data: Path, output: Path) -> dict[str, Any]:
    """Return the arguments of a training, which resumes the one in its folder."""
    epochs, batch = epochs_and_batch(run, settings.epochs)
    return {
        "clip": settings.clip,
        "data": data / source_of(run.dataset).path,
        "eval_data": [data / source_of(name).path for name in run.targets],
        "output": run.folder(output),
        "task": run.table,
        "shots": run.shots,
        "seed": run.seed,
        "descriptions": settings.descriptions
        and named_descriptions(Path(settings.descriptions), output / "descriptions"),
        "precision": settings.precision,
        "epochs": epochs,
        "batch_size": batch,
        "resume": True,
    }


def results_path(run: Run, output: Path) -> Path:
    """Return the file of a training's results."""
    return output / run.table / f"{run.name}.json"


def read_results(run: Run, settings: Settings, data: Path, output: Path) -> dict[str, Any] | None:
    """Return the finished results of a training, if there are any.

    Data that the results do not record, or that is missing in the folder `data`, is not compared.

    Raises:
        InputError: They were measured with other settings, or on other data.
    """
    path = results_path(run, output)
    if not path.exists():
        return None
    document: dict[str, Any] = json.loads(path.read_text())
    if document["settings"] != asdict(settings) | {"targets": list(run.targets)}:
        raise InputError(f"'{path}' was measured with {document['settings']}: use the same settings, or another -o")
    recorded: dict[str, str] = document.get("data", {})
    for name, identity in _identities(run, data).items():
        if recorded.get(name, identity) != identity:
            raise InputError(f"'{path}' was measured on other images of {name}: use the same data, or another -o")
    return document


def _identities(run: Run, data: Path) -> dict[str, str]:
    paths = {name: data / source_of(name).path for name in (run.dataset, *run.targets)}
    return {name: data_identity(path) for name, path in paths.items() if path.exists()}


def measure(run: Run, settings: Settings, data: Path, output: Path) -> dict[str, Any]:
    """Train, evaluate, and write the file of results."""
    result = train_prompts(**options_of(run, settings, data, output), notify=_notify).document()
    plain = template_accuracies(run, load_clip(settings.clip), data, output)
    for score, accuracy in zip(result["scores"], plain, strict=True):
        score["template_accuracy"] = accuracy
    document = {
        "settings": asdict(settings) | {"targets": list(run.targets)},
        "data": _identities(run, data),
        "run": asdict(run),
        **result,
    }
    write_atomic(results_path(run, output), json.dumps(document, indent=2) + "\n")
    return document


def plan_text(runs: Sequence[Run], epochs: int | None, tera_per_s: float) -> str:
    """Return the estimated duration of trainings with ViT-B/16 on a GPU of `tera_per_s` 10^12 operations per second."""
    lines = []
    total = 0.0
    for name in dict.fromkeys(run.dataset for run in runs):
        of_name = [run for run in runs if run.dataset == name]
        work = sum(peta_operations(run, *epochs_and_batch(run, epochs)) for run in of_name)
        total += work
        lines.append(f"{name:20} {len(of_name):3} trainings, {_hours(work, tera_per_s):6.1f} hours")
    lines.append(
        f"estimate for {len(runs)} trainings: {total:.0f} x 10^15 operations, {_hours(total, tera_per_s):.1f} hours at "
        f"{tera_per_s:g} x 10^12 operations/s; reading of images not included"
    )
    return "\n".join(lines)


def _hours(peta: float, tera_per_s: float) -> float:
    return 1000 * peta / tera_per_s / 3600


def _notify(message: str) -> None:
    click.echo(message, err=True)


_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)


@click.command(help=__doc__)
@click.argument("table", type=click.Choice(TABLES))
@click.option("--clip", help="The CLIP: OpenAI's ViT-B-16.pt, another file, or an open_clip name MODEL/WEIGHTS.")
@click.option("--data", type=_FOLDER, help="Folder of all data sets, as in CoOp's DATASETS.md.")
@click.option(
    "--descriptions", type=click.Path(path_type=Path, exists=True), help="The authors' gpt_file, or one file."
)
@click.option("--only", multiple=True, metavar="NAME", help="Data set by CoOp's name; default: all. Repeatable.")
@click.option("--shots", type=click.IntRange(min=1), multiple=True, help="Images per class; default: the paper's.")
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--epochs", type=click.IntRange(min=1), help="Default: the paper's.")
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True)
@click.option("--threads", type=click.IntRange(min=1))
@click.option("--plan", is_flag=True, help="Print the estimated duration with ViT-B/16 and stop.")
@click.option(
    "--tera-per-s", type=float, default=30.0, show_default=True, help="For --plan: the GPU's 10^12 operations/s."
)
@click.option("--report", is_flag=True, help="Write the table of the finished results and stop.")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("runs/tables"), show_default=True)
def main(
    table: str,
    clip: str | None,
    data: Path | None,
    descriptions: Path | None,
    only: tuple[str, ...],
    shots: tuple[int, ...],
    seeds: int,
    epochs: int | None,
    precision: str,
    threads: int | None,
    plan: bool,
    tera_per_s: float,
    report: bool,
    output: Path,
) -> None:
    """Measure a table."""
    set_torch_threads(threads)
    try:
        runs = list(planned(table, seeds, shots, only))
        if plan:
            click.echo(plan_text(runs, epochs, tera_per_s))
            return
        if clip is None or data is None:
            raise click.UsageError("give --clip and --data, or --plan")
        settings = Settings(clip, descriptions and str(descriptions), precision, epochs)
        if not report:
            require_data(runs, data)
        click.echo(_run(runs, settings, data, output, report))
    except EdgekitError as error:
        raise click.ClickException(str(error)) from error


def _run(runs: Sequence[Run], settings: Settings, data: Path, output: Path, report: bool) -> str:
    """Measure what is not finished, write the table, and return its text."""
    results: list[Mapping[str, Any]] = []
    for run in runs:
        found = read_results(run, settings, data, output)
        if found is None and not report:
            _notify(f"{run.table}, {run.name}")
            found = measure(run, settings, data, output)
        if found is not None:
            results.append(found)
    if not results:
        raise InputError(f"'{output / runs[0].table}' has no finished results: run without --report first")
    return write_table(runs[0].table, results, output)


if __name__ == "__main__":
    main()
