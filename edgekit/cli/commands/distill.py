"""`edgekit distill`: a teacher and a data set in, a small student's checkpoint out."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.options import PATH, activation_option
from edgekit.cli.output import Output, common_options
from edgekit.cli.sections import SectionedCommand
from edgekit.cli.train.training_options import training_document, training_options, training_view
from edgekit.models.training.options import TrainingOptions

if TYPE_CHECKING:
    from edgekit.models.distill.classifiers import PlainOnnx
    from edgekit.models.distill.votes import VotePowers


@click.command("distill", cls=SectionedCommand, short_help="Train a small net on what a teacher says.")
@click.option(
    "--teacher",
    "teachers",
    multiple=True,
    required=True,
    metavar="MODEL|DIR|CLIP",
    help="Model, training's folder, prompts, CLIP file or open_clip name. Several: their mean probability.",
)
@click.option("--student", default="edgecnn", show_default=True, help="The net: one of train's, or timm/NAME.")
@training_options
@click.option("--temperature", type=float, default=2.0, show_default=True, help="Softens teacher and student alike.")
@click.option("--kl-weight", type=float, help="Of the divergence from the teacher; default: 1.")
@click.option("--ce-weight", type=float, help="Of the labels; default: 0.1, 0 with a CLIP.")
@click.option("--cosine-weight", type=float, help="Of the distance to a CLIP's embedding; default: 1 with a CLIP.")
@click.option(
    "--views",
    type=click.Choice(["center", "center-flip", "ten-crop"]),
    help="What of each image the teacher is asked about, once; default: center-flip.",
)
@click.option("--cache", type=PATH, metavar="DIR", help="Keeps its answers; default: in the output folder.")
@click.option("--on-the-fly", is_flag=True, help="Ask the teacher about each augmented crop instead; slow.")
@click.option(
    "--unlabelled",
    type=PATH,
    metavar="PATH",
    help="Folder or .tar of pictures without labels to learn from, too.",
)
@click.option("--teacher-power", type=float, help="With --ferplus: of the teacher's probabilities; default: 0.7.")
@click.option("--votes-power", type=float, help="With --ferplus: of what the votes say of the label; default: 0.5.")
@click.option("--clip", metavar="FILE|NAME", help="The CLIP that a teacher's prompts belong to.")
@click.option(
    "--descriptions",
    type=PATH,
    metavar="JSON",
    help="Of the classes, for a CLIP without prompts.",
)
@activation_option
@click.option("--teacher-labels", metavar="A,B,…", help="An ONNX teacher without contract: classes in output order.")
@click.option("--teacher-size", type=click.IntRange(1, 1024), metavar="PX", help="… its picture's side.")
@click.option("--teacher-channels", type=click.Choice(["rgb", "bgr", "gray"]), help="… its colour order.")
@click.option("--teacher-scale", type=float, help="… input = (pixel * scale - mean) / std.")
@click.option("--teacher-mean", metavar="X[,Y,Z]", help="… a value a channel.")
@click.option("--teacher-std", metavar="X[,Y,Z]", help="… a value a channel.")
@click.option("--teacher-output", type=click.Choice(["logits", "probabilities"]), help="… what it gives.")
@common_options
def command(
    out: Output,
    options: TrainingOptions,
    teachers: tuple[str, ...],
    student: str,
    temperature: float,
    kl_weight: float | None,
    ce_weight: float | None,
    cosine_weight: float | None,
    views: Any,
    cache: Path | None,
    on_the_fly: bool,
    unlabelled: Path | None,
    teacher_power: float | None,
    votes_power: float | None,
    clip: str | None,
    descriptions: Path | None,
    activation: Any,
    **said: Any,
) -> None:
    """Train a small net to answer as a teacher does.

    A teacher is a checkpoint, an exported model, any other ONNX classifier, a CLIP, or a CLIP with trained prompts. The
    student of a CLIP lives in its embedding space, so that `export` can give it other labels later.

    With --ferplus and --ferplus-labels posterior, what the votes say of each label is put into the teacher's answers.

    The teacher is asked once about each image, and its answers are kept: the epochs cost the student only. The output
    folder is train's.

    \b
    Examples:
      edgekit distill --teacher runs/wide --data fer2013.tar.gz -o runs/student
      edgekit distill --teacher runs/a --teacher runs/b --data fer2013.tar.gz -o runs/student --cache answers
      edgekit distill --teacher runs/wide --data fer2013.tar.gz --ferplus ferplus_votes.csv
          --ferplus-labels posterior --temperature 1 -o runs/student
      edgekit distill --teacher runs/prompts --clip ViT-B-16.pt --data faces --unlabelled more -o runs/student
      edgekit distill --teacher big.onnx --data faces -o runs/student --teacher-labels happy,sad
          --teacher-channels rgb --teacher-scale 0.00392157 --teacher-mean 0.5,0.5,0.5 --teacher-std 0.5,0.5,0.5
          --teacher-output logits
    """
    from edgekit.cli.progress import counted, progress_bar
    from edgekit.errors import InputError
    from edgekit.files import check_writable
    from edgekit.models.data.fer2013 import SIDE_PX
    from edgekit.models.data.unlabelled import load_unlabelled, with_unlabelled
    from edgekit.models.distill.cache import FOLDER_NAME, agreement, pixels_sha256, teach
    from edgekit.models.distill.losses import loss_weights
    from edgekit.models.distill.opening import TeacherOptions, open_teacher
    from edgekit.models.distill.task import DistillationConfig, DistillationTask, student_architecture
    from edgekit.models.distill.votes import class_shares, with_votes
    from edgekit.models.evaluation.evaluate import evaluate, open_classifier
    from edgekit.models.model_loading import contract_for
    from edgekit.models.nets.registry import require_no_space
    from edgekit.models.torch_threads import set_torch_threads
    from edgekit.models.training.distributed import is_first_process
    from edgekit.models.training.loop import check_output
    from edgekit.models.training.run import (
        initial_weights,
        make_job,
        read_training_data,
        recipe_of,
        run_training,
    )

    powers = _vote_powers(options, on_the_fly, teacher_power, votes_power)
    if on_the_fly and views:
        raise InputError("--views is for cached answers: leave it or --on-the-fly out")
    if on_the_fly and cache:
        raise InputError("--cache keeps answers, and --on-the-fly has none to keep: leave one of them out")
    recipe = recipe_of(options)
    if options.threads:
        set_torch_threads(options.threads)
    require_no_space(student)
    contract_for(student, ("any",), "any", gray=True)  # an unknown net is reported before the data is read
    teacher_options = TeacherOptions(
        clip, descriptions, activation, _plain(**said), options.threads, options.accelerator != "cpu"
    )
    check_output(options.output, options.resume)
    with training_view(out, options.output) as view:
        data = read_training_data(options, (), out.say, view.progress)
    dataset, training = data.dataset, data.training
    teacher = open_teacher(teachers, dataset.classes, teacher_options, out.say)
    weights = loss_weights(teacher, kl_weight, ce_weight, cosine_weight)
    contract = contract_for(student_architecture(student, teacher), dataset.classes, dataset.name, dataset.is_gray)
    initial = initial_weights(options, contract, out.say)  # a wrong one is said before hours of a large teacher's work
    checksum = None
    folder = cache or options.output / FOLDER_NAME
    with progress_bar(out) as progress:
        if unlabelled:
            more = load_unlabelled(unlabelled, SIDE_PX, dataset.is_gray, counted(progress, "reading more images"))
            training, checksum = with_unlabelled(training, more), pixels_sha256(more)
            out.say(f"{len(more)} images without labels to learn from, too")
        config = DistillationConfig(
            weights, temperature, None if on_the_fly else views or "center-flip", checksum, powers
        )
        answers = None
        if config.views:
            report = counted(progress, "asking the teacher")
            check_writable(folder / "answers")  # before hours of a large teacher's work
            answers = teach(teacher, training.images, config.views, folder, report, out.warn)
        if answers and powers and training.targets is not None:
            prior = class_shares(training.labels, len(dataset.classes))
            answers = with_votes(answers, training.targets, prior, powers)
            training = replace(training, targets=None)
    task = DistillationTask(contract, recipe, training, data.validation, teacher, config, answers, initial)
    job = make_job(options, data, task, recipe, {"teacher": teacher.record()})
    out.say(f"{contract.architecture} learns from {teacher.name}; loss: {_sum_of(asdict(weights))}")
    with training_view(out, options.output) as view:
        result = run_training(job, options, data, out.say, view.on_step, view.on_epoch)
    if not is_first_process():
        return  # one compares for all
    student_logits = evaluate(open_classifier(result.checkpoint), data.validation, "center-crop").logits
    shares: list[tuple[str, float]] = []
    with progress_bar(out) as progress:
        for name, each in (*zip(teachers, teacher.members, strict=False), ("its teacher", teacher)):
            report = counted(progress, "comparing with the teacher")
            its = teach(each, data.validation.images, "center", folder, report, out.warn).logits
            shares.append((name, agreement(student_logits, its)))
    *of_members, (_, whole) = shares
    right = float((its.argmax(axis=1) == data.validation.labels).mean())  # the last one's, the whole teacher's
    for name, share in shares:
        out.say(f"agrees with {name} on {share:.2%} of {data.validation_name}")
    out.say(f"the teacher itself: {right:.2%} on {data.validation_name}")
    out.result(
        {
            **training_document(result),
            "teacher": teacher.record(),
            "loss_weights": asdict(weights),
            "agreement": whole,
            "teacher_accuracy": right,
            "member_agreement": [{"teacher": name, "agreement": share} for name, share in of_members],
        }
    )


def _vote_powers(
    options: TrainingOptions, on_the_fly: bool, teacher_power: float | None, votes_power: float | None
) -> VotePowers | None:
    from edgekit.errors import InputError
    from edgekit.models.distill.votes import VotePowers

    said = (("teacher", teacher_power), ("votes", votes_power))
    given = {name: power for name, power in said if power is not None}
    if options.ferplus is None or options.ferplus_labels != "posterior":
        if given:
            raise InputError(f"--{next(iter(given))}-power goes with --ferplus and --ferplus-labels posterior")
        return None
    if on_the_fly:
        raise InputError("--on-the-fly asks the teacher alone: leave it or --ferplus-labels posterior out")
    return VotePowers(**given)


def _plain(
    teacher_labels: str | None,
    teacher_size: int | None,
    teacher_channels: Any,
    teacher_scale: float | None,
    teacher_mean: str | None,
    teacher_std: str | None,
    teacher_output: Any,
) -> PlainOnnx:
    from edgekit.models.distill.classifiers import PlainOnnx

    labels = teacher_labels and tuple(label.strip() for label in teacher_labels.split(","))
    mean, std = _numbers("--teacher-mean", teacher_mean), _numbers("--teacher-std", teacher_std)
    return PlainOnnx(labels or None, teacher_size, teacher_channels, teacher_scale, mean, std, teacher_output)


def _numbers(flag: str, text: str | None) -> tuple[float, ...] | None:
    try:
        return None if text is None else tuple(float(value) for value in text.split(","))
    except ValueError as error:
        raise click.UsageError(f"{flag} is '{text}': expected numbers with commas") from error


def _sum_of(weights: dict[str, float]) -> str:
    return " + ".join(f"{weight:g} {name}" for name, weight in weights.items() if weight)
