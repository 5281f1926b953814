"""Effect of distillation, in two tables over several seeds.

    python benchmarks/models/distillation_study.py students --data fer2013.tar.gz --teacher runs/wide-0 \\
        --again runs/wide-1 --epochs 30 --threads 1
    python benchmarks/models/distillation_study.py merged --data fer2013.tar.gz runs/student/best.safetensors \\
        --clip runs/mini/best.safetensors --prompts runs/prompts/best.safetensors --init default \\
        --recipe fer2013-finish --epochs 8 --threads 1

A finished training is not repeated, an interrupted one is resumed. Each command writes its table as .md and .json.

`students` compares a distilled student with the same net trained on labels alone with the same budget. It reports the
accuracy, the agreement with the teacher, and the agreement of the teacher with the same net trained with another seed
(`--again`). Several `--teacher` and several `--again` form two ensembles.

`merged` compares classes merged without training, by the methods of `merged_accuracies` in distillation.py, with nets
trained for the merged classes.

`--recipe` and `--init` apply to all trainings. Options after `--` are passed to `edgekit distill`, such as
`-- --temperature 4`.
"""

from __future__ import annotations

import functools
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click
from distillation import merged_accuracies, or_line
from prompts_report import spread

from edgekit.files import write_atomic
from edgekit.models.data import DataSet
from edgekit.models.data.merging import merge_classes, parse_merges
from edgekit.models.data.readers import load_dataset
from edgekit.models.distill.cache import agreement, distillation_targets
from edgekit.models.distill.opening import TeacherOptions, open_teacher
from edgekit.models.distill.teachers import Teacher, TeacherOutputs
from edgekit.models.evaluation.evaluate import aligned, evaluate, open_classifier
from edgekit.models.torch_threads import set_torch_threads
from edgekit.preprocess import FloatArray

RESULTS_NAME = "run.json"
REQUIRED_SHARE = 0.9  # agreement with the teacher, divided by the teacher's agreement with its other seed
ALLOWED_LOSS = 0.02  # drop of accuracy, 0..1, compared with a net trained for the merged classes
MERGES = ("positive=happy", "negative=angry,disgust,fear,sad", "neutral=neutral")
TRAINED = "trained for the merged classes"
TEXTS = Path(__file__).with_name("merged_classes.json")


def run_once(folder: Path, command: Sequence[object]) -> Path:
    """Run a training command of edgekit unless its results exist, and return the checkpoint's path.

    Raises:
        click.ClickException: The results are those of another command, or the training failed; its own message is on
            stderr.
    """
    results, words = folder / RESULTS_NAME, list(map(str, command))
    if not results.exists():
        click.echo(f"training {folder}", err=True)
        arguments = [sys.executable, "-m", "edgekit.cli", *words, "-o", str(folder), "--resume", "--json"]
        done = subprocess.run(arguments, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise click.ClickException(f"the training in '{folder}' ended with exit code {done.returncode}")
        write_atomic(results, json.dumps({"command": words, **json.loads(done.stdout)}, indent=2) + "\n")
    document = json.loads(results.read_text())
    if document.get("command") != words:
        raise click.ClickException(f"'{results}' is of another command: use the same options, or another --runs")
    return Path(document["checkpoint"])


def accuracy(logits: FloatArray, dataset: DataSet, split: str) -> float:
    """Return the accuracy, 0..1, of logits for the images of a split."""
    return float((logits.argmax(axis=1) == dataset.split(split).labels).mean())


def centre_logits(path: Path, dataset: DataSet, split: str) -> FloatArray:
    """Return a net's logits for the centre crops of a split, in the order of the data's classes."""
    classifier = open_classifier(path)
    result = evaluate(classifier, aligned(dataset, dataset.split(split), classifier.contract), "center-crop")
    return result.logits[:, [classifier.contract.labels.index(name) for name in dataset.classes]]


def students_page(facts: dict[str, Any]) -> str:
    """Return the content of students.md."""
    distilled, plain = facts["distilled"], facts["plain"]
    share = statistics.mean(distilled["agreement"]) / facts["retest"]
    rows = [
        ["teacher", f"{facts['teacher_accuracy']:.2%}", ""],
        ["nets like the teacher, with other seeds", f"{facts['again_accuracy']:.2%}", f"{facts['retest']:.2%}"],
        [f"{facts['student']}, distilled", spread(distilled["accuracy"]), spread(distilled["agreement"])],
        [f"{facts['student']}, without distillation", spread(plain["accuracy"]), spread(plain["agreement"])],
    ]
    verdict = "met" if share >= REQUIRED_SHARE else "missed"
    return "\n".join(
        [
            "# Students and their teacher",
            "",
            f"The accuracy is measured on {facts['split']} with the centre crop. Each kind of student was trained with "
            f"{len(distilled['accuracy'])} seeds, for {facts['budget']}. The table shows the mean, and the standard "
            f"deviation after ±. The teacher is {facts['teacher']}.",
            "",
            *_table([[facts["split"], "accuracy", "same label as the teacher"], *rows]),
            "",
            "The agreement is the share of the images with the same label. The agreement of the distilled students is "
            f"{share:.1%} of the agreement of nets like the teacher (required: {REQUIRED_SHARE:.0%}, {verdict}).",
            "",
            *(
                f"- agreement with {name}: {spread(values)}"
                for name, values in distilled.get("member_agreement", {}).items()
            ),
            "",
        ]
    )


def merged_page(facts: dict[str, Any]) -> str:
    """Return the content of merged.md."""
    trained, allowed = statistics.mean(facts["accuracy"][TRAINED]), f"{100 * ALLOWED_LOSS:.0f}"
    rows = []
    for name, values in facts["accuracy"].items():
        behind = trained - statistics.mean(values)
        verdict = "met" if behind <= ALLOWED_LOSS + 1e-9 else "missed"
        rows.append(
            [name, str(len(values)), spread(values), "" if name == TRAINED else f"{100 * behind:.2f}, {verdict}"]
        )
    return "\n".join(
        [
            "# Merged classes",
            "",
            f"The merged classes are {', '.join(facts['merges'])}. The accuracy is measured on {facts['split']} with "
            f"the centre crop. The nets of the last row were trained for {facts['budget']}.",
            "",
            *_table([["method", "nets", "accuracy", f"points lower than the last row (allowed: {allowed})"], *rows]),
            "",
        ]
    )


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    head, *rest = rows
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rest)]


@click.group()
def main() -> None:
    """Measure the effect of distillation."""


@dataclass(frozen=True)
class Study:
    """Options of both commands: the data, the training budget, and the output folders."""

    data: Path
    split: str
    student: str
    seeds: int
    recipe: str
    init: str | None
    epochs: int | None
    precision: str
    threads: int | None
    runs: Path
    output: Path

    @property
    def flags(self) -> list[object]:
        """Data and training budget as options of `edgekit train` and `edgekit distill`."""
        given = (("--init", self.init), ("--epochs", self.epochs), ("--threads", self.threads))
        more = [part for flag, value in given if value is not None for part in (flag, value)]
        return ["--data", self.data, "--precision", self.precision, "--recipe", self.recipe, *more]

    @property
    def budget(self) -> str:
        """The training budget as text."""
        start = f" from '{self.init}'" if self.init else ""
        return f"{f'{self.epochs} epochs of' if self.epochs else 'all of'} {self.recipe}{start} in {self.precision}"

    def load(self) -> DataSet:
        """Read the data set and set torch's threads."""
        set_torch_threads(self.threads)
        return load_dataset(self.data)


def _common(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options of both commands to a command, which receives them as one `study: Study`."""

    @functools.wraps(function)
    def wrapper(**arguments: Any) -> None:
        values = {field.name: arguments.pop(field.name) for field in fields(Study)}
        function(study=Study(**values), **arguments)

    for decorator in reversed(
        (
            click.option("--data", type=click.Path(path_type=Path), required=True),
            click.option("--split", default="PrivateTest", show_default=True, help="Split of the evaluation."),
            click.option("--student", default="edgecnn", show_default=True, help="The net to train."),
            click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True),
            click.option("--recipe", default="fer2013", show_default=True, help="Recipe of each training."),
            click.option("--init", metavar="MODEL", help="Initial weights of each training."),
            click.option(
                "--epochs", type=click.IntRange(min=1), help="Epochs of each training; default: the recipe's."
            ),
            click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="bf16", show_default=True),
            click.option("--threads", type=click.IntRange(min=1)),
            click.option("--runs", type=click.Path(path_type=Path), default=Path("runs/study"), show_default=True),
            click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("docs"), show_default=True),
        )
    ):
        wrapper = decorator(wrapper)
    return wrapper


@main.command(context_settings={"ignore_unknown_options": True})
@_common
@click.option("--teacher", "teachers", multiple=True, required=True, help="As for `edgekit distill`. Repeatable.")
@click.option("--again", "agains", multiple=True, required=True, help="The same nets, trained with other seeds.")
@click.option("--clip", help="The CLIP that a teacher's prompts belong to.")
@click.argument("more", nargs=-1)
def students(
    study: Study,
    teachers: tuple[str, ...],
    agains: tuple[str, ...],
    clip: str | None,
    more: tuple[str, ...],
) -> None:
    """Distil and train students over several seeds, and compare accuracy and agreement."""

    def measure() -> dict[str, Any]:
        dataset, split, student, runs = study.load(), study.split, study.student, study.runs
        images = dataset.split(split).images  # a wrong --split is an error before hours of training
        options = [*(part for name in teachers for part in ("--teacher", name)), *(("--clip", clip) if clip else ())]
        cache = ("--cache", runs / "answers", "--student", student)
        distilled, plain = [], []
        for seed in range(study.seeds):
            command = ["distill", *options, *cache, *study.flags, "--seed", seed, *more]
            distilled.append(run_once(runs / f"{student}-distilled-{seed}", command))
            trained = ["train", "--model", student, *study.flags, "--seed", seed]
            plain.append(run_once(runs / f"{student}-labels-{seed}", trained))

        def outputs_of(teacher: Teacher) -> TeacherOutputs:
            return distillation_targets(teacher, images, "center", runs / "answers")

        opening = TeacherOptions(clip=clip)
        teacher = open_teacher(teachers, dataset.classes, opening)
        teacher_logits = outputs_of(teacher).logits
        other = outputs_of(open_teacher(agains, dataset.classes, opening)).logits
        members = {name: outputs_of(member).logits for name, member in zip(teachers, teacher.members, strict=False)}
        return {
            "student": student,
            "teacher": teacher.name,
            "split": split,
            "budget": study.budget,
            "teacher_accuracy": accuracy(teacher_logits, dataset, split),
            "again_accuracy": accuracy(other, dataset, split),
            "retest": agreement(teacher_logits, other),
            "distilled": _compared(distilled, teacher_logits, members, dataset, split),
            "plain": _compared(plain, teacher_logits, {}, dataset, split),
        }

    _write(study.output, "students", or_line(measure), students_page)


@main.command()
@_common
@click.argument("distilled", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--clip", help="CLIP of the students' teacher; without it the texts are not measured.")
@click.option("--prompts", type=click.Path(path_type=Path), help="The teacher's prompts, if it has some.")
@click.option("--merge", "merges", multiple=True, default=MERGES, show_default=True, help="NEW=OLD,OLD")
@click.option(
    "--descriptions",
    type=click.Path(path_type=Path),
    default=TEXTS,
    show_default=False,
    help="Descriptions of the new classes.",
)
@click.option(
    "--offset-split", default="Training", show_default=True, help="Split for the offsets of the mean vectors."
)
def merged(
    study: Study,
    distilled: tuple[Path, ...],
    clip: str | None,
    prompts: Path | None,
    merges: tuple[str, ...],
    descriptions: Path,
    offset_split: str,
) -> None:
    """Merge the classes of DISTILLED students of a CLIP, and train nets for the merged classes to compare."""

    def measure() -> dict[str, Any]:
        whole, split, student = study.load(), study.split, study.student
        dataset = merge_classes(whole, parse_merges(merges, whole.classes))
        dataset.split(split)  # a wrong --split is an error before hours of training
        flags = [part for text in merges for part in ("--merge", text)]
        nets = [
            run_once(
                study.runs / f"{student}-merged-{seed}",
                ["train", "--model", student, *study.flags, "--seed", seed, *flags],
            )
            for seed in range(study.seeds)
        ]
        found: dict[str, list[float]] = {}
        for path in distilled:
            for name, value in merged_accuracies(
                path, whole, (split, offset_split), merges, descriptions, clip, prompts
            ).items():
                found.setdefault(name, []).append(value)
        trained = [accuracy(centre_logits(path, dataset, split), dataset, split) for path in nets]
        return {
            "merges": list(merges),
            "split": split,
            "budget": study.budget,
            "students": [str(path) for path in distilled],
            "accuracy": {**found, TRAINED: trained},
        }

    _write(study.output, "merged", or_line(measure), merged_page)


def _compared(
    paths: Sequence[Path], teacher_logits: FloatArray, members: dict[str, FloatArray], dataset: DataSet, split: str
) -> dict[str, Any]:
    logits = [centre_logits(path, dataset, split) for path in paths]
    found: dict[str, Any] = {
        "accuracy": [accuracy(each, dataset, split) for each in logits],
        "agreement": [agreement(each, teacher_logits) for each in logits],
    }
    if members:
        found["member_agreement"] = {
            name: [agreement(each, theirs) for each in logits] for name, theirs in members.items()
        }
    return found


def _write(output: Path, name: str, facts: dict[str, Any], page: Callable[[dict[str, Any]], str]) -> None:
    text = page(facts)
    write_atomic(output / f"{name}.json", json.dumps(facts, indent=2) + "\n")
    write_atomic(output / f"{name}.md", text)
    click.echo(text)


if __name__ == "__main__":
    main()
