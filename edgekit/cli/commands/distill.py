"""`edgekit distill`: train a small net on the outputs of a teacher."""

from __future__ import annotations

from dataclasses import asdict

from edgekit.cli.command import command as edgekit_command
from edgekit.cli.output import Output, picked
from edgekit.cli.training_view import training_view
from edgekit.models.training.options import DistillOptions


@edgekit_command("distill", short_help="Train a small net on the outputs of a teacher.", options=DistillOptions)
def command(out: Output, options: DistillOptions) -> None:
    """Train a small net, the student, to reproduce the outputs of a teacher.

    A teacher is a checkpoint, an exported model, a file of `edgekit import`, a CLIP, or a CLIP with trained prompts.
    The student of a CLIP has the CLIP's embedding space. `export` can therefore give the student other labels later.

    The teacher classifies each image only once, before the training. The output folder receives the same files as that
    of `train`.

    \b
    Examples:
      edgekit distill --teacher runs/wide --data fer2013.tar.gz -o runs/student
      edgekit distill --teacher runs/a --teacher runs/b --data fer2013.tar.gz -o runs/student
      edgekit distill --teacher runs/prompts --clip ViT-B-16.pt --data faces -o runs/student
      edgekit distill --teacher runs/flowers --data flowers -o runs/small
    """
    from edgekit.models.distill.distillation import distill

    with training_view(out, options.output) as view:
        result = distill(**vars(options) | view.callbacks)
    if result.agreement is None:
        return  # another process prints the result
    validation = result.training.validation_name
    out.say(f"agreement with its teacher: {result.agreement:.2%} of {validation}")
    out.say(f"accuracy of the teacher: {result.teacher_accuracy:.2%} on {validation}")
    shown = picked(result, "teacher", "agreement", "teacher_accuracy")
    out.result({**result.training.document(), **shown, "loss_weights": asdict(result.loss_weights)})
