"""`edgekit distill`: train a small net on the outputs of a teacher."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.command import Command, section
from edgekit.cli.options import PATH, activation_option, contempt_option
from edgekit.cli.output import Output, picked
from edgekit.cli.train.training_options import calibrate_option, data_options, training_options, training_view
from edgekit.models.training.options import TrainingOptions

if TYPE_CHECKING:
    from edgekit.models.distill.run import DistillationResult


@click.command("distill", cls=Command, short_help="Train a small net on the outputs of a teacher.")
@section(
    "Teacher and student",
    click.option(
        "--teacher",
        "teachers",
        multiple=True,
        required=True,
        metavar="MODEL|DIR|CLIP",
        help="Model, folder of a training, file of prompts, CLIP file or open_clip name. Repeatable; several "
        "teachers are averaged.",
    ),
    click.option("--student", default="edgecnn", show_default=True, help="The net, named as in 'train --model'."),
    click.option("--clip", metavar="FILE|DIR|NAME", help="The CLIP that the teacher's prompts were trained for."),
    click.option("--descriptions", type=PATH, metavar="JSON", help="Sentences per class, for a CLIP without prompts."),
    activation_option,
)
@section(
    "Loss and targets",
    click.option(
        "--temperature", type=float, default=2.0, show_default=True, help="Softmax temperature of teacher and student."
    ),
    click.option("--kl-weight", type=float, help="Weight of the KL divergence from the teacher; default: 1."),
    click.option(
        "--ce-weight",
        type=float,
        help="Weight of the cross-entropy with the labels. Default: 0.1; with a CLIP as teacher 0.",
    ),
    click.option(
        "--cosine-weight",
        type=float,
        help="Weight of the distance between embeddings. Default: 1 with a CLIP as teacher.",
    ),
    click.option(
        "--views",
        type=click.Choice(["center", "center-flip", "ten-crop", "all-crops"]),
        help="Views of each image that the teacher classifies, each view once. all-crops: every crop that the "
        "training can draw, for recipes that only crop and flip. Default: center-flip.",
    ),
    click.option(
        "--out-of-fold",
        is_flag=True,
        help="Classify each image only with the teachers that were trained without this image; see 'train --folds'.",
    ),
    click.option(
        "--cache",
        type=PATH,
        metavar="DIR",
        help="Folder for the cached outputs of the teacher. Default: a folder in --output.",
    ),
    click.option(
        "--on-the-fly",
        is_flag=True,
        help="The teacher classifies every augmented crop during the training, without cached outputs. Slow.",
    ),
    click.option(
        "--teacher-power",
        type=float,
        help="With --ferplus: exponent of the teacher's probabilities; default: 0.7.",
    ),
    click.option("--votes-power", type=float, help="With --ferplus: exponent of P(label | votes); default: 0.5."),
)
@data_options
@section(
    "Data",
    contempt_option,
    click.option(
        "--unlabelled",
        type=PATH,
        metavar="PATH",
        help="Folder or .tar of images without labels, in addition to --data.",
    ),
)
@section("Calibration", calibrate_option)
@training_options
def command(out: Output, options: TrainingOptions, teachers: tuple[str, ...], **values: Any) -> None:
    """Train a small net, the student, to reproduce the outputs of a teacher.

    A teacher is a checkpoint, an exported model, a file of `edgekit import`, a CLIP, or a CLIP with trained prompts.
    The student of a CLIP has the CLIP's embedding space. `export` can therefore give the student other labels later.

    With --ferplus and --ferplus-labels posterior, the training targets combine the outputs of the teacher with P(label
    | votes).

    The teacher classifies each image once, and the outputs are cached. An epoch therefore takes only the time of the
    student. The output folder receives the same files as that of `train`.

    \b
    Examples:
      edgekit distill --teacher runs/wide --data fer2013.tar.gz -o runs/student
      edgekit distill --teacher runs/a --teacher runs/b --data fer2013.tar.gz --cache outputs
          -o runs/student
      edgekit distill --teacher runs/wide --data fer2013.tar.gz --ferplus ferplus_votes.csv
          --ferplus-labels posterior --temperature 1 -o runs/student
      edgekit distill --teacher runs/prompts --clip ViT-B-16.pt --data faces --unlabelled more
          -o runs/student
      edgekit distill --teacher runs/flowers --data flowers -o runs/small
    """
    from edgekit.models.distill.run import DistillOptions, distill

    with training_view(out, options.output) as view:
        result = distill(
            DistillOptions(**vars(options), teachers=teachers, **values),
            **view.callbacks,
        )
    if result.agreement is None:
        return  # another process prints the result
    validation = result.training.validation_name
    for teacher, share in (*zip(teachers, result.member_agreement, strict=False), ("its teacher", result.agreement)):
        out.say(f"agreement with {teacher}: {share:.2%} of {validation}")
    out.say(f"accuracy of the teacher: {result.teacher_accuracy:.2%} on {validation}")
    out.result(_document(result, teachers))


def _document(result: DistillationResult, teachers: tuple[str, ...]) -> dict[str, Any]:
    return {
        **result.training.document(),
        **picked(result, "teacher", "agreement", "teacher_accuracy"),
        "loss_weights": asdict(result.loss_weights),
        "member_agreement": [
            {"teacher": teacher, "agreement": share}
            for teacher, share in zip(teachers, result.member_agreement, strict=False)
        ],
    }
