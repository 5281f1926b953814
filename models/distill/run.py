"""`edgekit.distill`: train a small net on the outputs of one or several teachers.

result = edgekit.distill(teachers=["runs/wide"], data="fer2013.tar.gz", output="runs/student", epochs=6)
print(result.training.validation_accuracy, result.agreement)
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from edgekit.contract import Fit
from edgekit.files import check_writable
from edgekit.models.callbacks import of_stage
from edgekit.models.clip.text_tower import text_tower_beside, write_text_tower
from edgekit.models.data import ImageSet, identical_to
from edgekit.models.data.balance import class_shares
from edgekit.models.data.fer2013 import SIDE_PX
from edgekit.models.data.unlabelled import load_unlabelled, with_unlabelled
from edgekit.models.distill.opening import TeacherOptions, crops_of, open_teacher
from edgekit.models.distill.options import DistillOptions
from edgekit.models.distill.targets import agreement, kept_targets, pixels_sha256, targets_of, with_votes
from edgekit.models.distill.task import (
    DistillationConfig,
    DistillationTask,
    LossWeights,
    loss_weights,
    student_contract,
)
from edgekit.models.distill.teacher_images import images_for_teacher
from edgekit.models.evaluation.evaluate import evaluate, open_classifier
from edgekit.models.model_loading import contract_for
from edgekit.models.nets.registry import require_no_space
from edgekit.models.torch_threads import set_torch_threads
from edgekit.models.training.distributed import is_first_process
from edgekit.models.training.finish import finish_net
from edgekit.models.training.loop import check_output
from edgekit.models.training.prior import class_bias
from edgekit.models.training.recipes import DEFAULT_RECIPE
from edgekit.models.training.run import (
    TrainingData,
    TrainingResult,
    check_prior_strength,
    check_training_images,
    initial_weights,
    make_job,
    net_recipe_of,
    precision_for,
    read_training_data,
    run_training,
)
from edgekit.models.training.start import input_values
from edgekit.options import takes

TARGETS_NAME = "teacher.safetensors"


@dataclass(frozen=True)
class DistillationResult:
    """A finished distillation.

    Attributes:
        training: Paths, best epoch and reports of the student's training.
        teacher: Record of the teacher, as in the student's checkpoint.
        loss_weights: Weights of the parts of the loss.
        agreement: Share of the validation images on which student and teacher have the same label, 0..1; None in all
            but the first of several processes.
        teacher_accuracy: The teacher's accuracy on the validation images, 0..1; None where `agreement` is None.
    """

    training: TrainingResult
    teacher: dict[str, Any]
    loss_weights: LossWeights
    agreement: float | None = None
    teacher_accuracy: float | None = None


@takes(DistillOptions)
def distill(options: DistillOptions) -> DistillationResult:
    """Train a student on the outputs of teachers, then compare student and teachers on the validation images.

    The output folder receives the files of `edgekit.train`, and the teacher's outputs in teacher.safetensors. The
    student of a CLIP has the CLIP's embedding space, so `edgekit.export` can give the student other labels without
    training. For a small CLIP of edgekit, the folder also receives its text tower, as best.text.safetensors.

    Raises:
        InputError: An option, a teacher or the data is invalid, or the output folder contains another training.
        StorageError: The disk is full or read-only.
        UnavailableError: A CLIP that is given by name cannot be downloaded.
        GateError: A device would compute other pixels than the training; the checkpoint is kept.
    """
    notify = options.notify
    set_torch_threads(options.threads)
    options = replace(options, recipe=DEFAULT_RECIPE if options.recipe == "auto" else options.recipe)
    check_prior_strength(options.prior_strength, net_recipe_of(options).balance)
    require_no_space(options.student)
    contract_for(options.student, ("any",), "any", gray=True)  # reports an unknown net before the data is read
    check_output(options.output, options.resume)
    crops = crops_of(options.teachers)
    fit: Fit = options.fit if options.fit != "auto" else crops[0].fit if crops else "square"
    data = read_training_data(options, cache="auto", fit=fit)
    check_training_images(data, notify)
    dataset = data.dataset
    use_gpu = options.accelerator != "cpu"
    opening = TeacherOptions(options.clip, options.descriptions, dataset.name, options.threads, use_gpu)
    teacher = open_teacher(options.teachers, dataset.classes, opening, notify)
    weights = loss_weights(teacher, options.kl_weight, options.ce_weight, options.cosine_weight)
    contract = student_contract(options.student, teacher, dataset, fit, input_values(options.student, options.init))
    if options.prior_strength:
        class_bias(contract.architecture)  # reports a net without one before the training
    initial = initial_weights(options, contract)  # a wrong file is reported before the teacher runs for hours
    recipe = net_recipe_of(options, initial, notify)
    training, unlabelled_sha256 = _with_unlabelled(options, data, fit)
    for_teacher = partial(
        images_for_teacher,
        teacher=teacher,
        data=options.data,
        contempt=options.contempt,
        fit=fit,
        folder=options.output,
        notify=notify,
        progress=options.progress,
    )
    path = options.output / TARGETS_NAME
    check_writable(path)  # a read-only folder is reported before the teacher runs for hours
    notify(f"{teacher.name} classifies {len(training)} training images")
    running = of_stage(options.progress, "running the teacher")
    targets = kept_targets(teacher, for_teacher(training, unlabelled=options.unlabelled), path, running)
    has_votes = options.ferplus is not None and options.ferplus_labels == "posterior"
    if has_votes and training.targets is not None:
        targets = with_votes(targets, training.targets, class_shares(training.labels, len(dataset.classes)))
        training = replace(training, targets=None)
    config = DistillationConfig(weights, options.temperature, unlabelled_sha256, has_votes)
    task = DistillationTask(contract, recipe, training, data.validation, teacher, config, targets, initial)
    terms = " + ".join(f"{weight:g} {name}" for name, weight in asdict(weights).items() if weight)
    notify(f"{contract.architecture} learns from {teacher.name}; loss: {terms}")
    precision, strength = precision_for(options, contract.architecture), options.prior_strength
    job = make_job(options, data, task, recipe, precision, teacher=teacher.record(), prior_strength=strength)
    trained = finish_net(run_training(job, options, data), options, data)
    result = DistillationResult(trained, teacher.record(), weights)
    if not is_first_process():
        return result  # the first process compares for all
    if teacher.text_tower is not None:
        write_text_tower(text_tower_beside(trained.checkpoint), teacher.text_tower)
    student = evaluate(open_classifier(trained.checkpoint), data.validation, "center-crop").logits
    comparing, images = of_stage(options.progress, "comparing with the teacher"), for_teacher(data.validation)
    logits = targets_of(teacher, images, comparing, mirrored=False).logits
    accuracy = float((logits.argmax(axis=1) == data.validation.labels).mean())
    return replace(result, agreement=agreement(student, logits), teacher_accuracy=accuracy)


def _with_unlabelled(options: DistillOptions, data: TrainingData, fit: Fit) -> tuple[ImageSet, str | None]:
    """Return the training images with the unlabelled images appended, and the checksum of the unlabelled ones."""
    if options.unlabelled is None:
        return data.training, None
    reading, notify = of_stage(options.progress, "reading unlabelled images"), options.notify
    is_gray, folder = data.dataset.is_gray, options.output
    more = load_unlabelled(options.unlabelled, SIDE_PX, is_gray, reading, fit=fit, folder=folder, notify=notify)
    notify(f"{len(more)} images without labels are used as well")
    if leaked := int(identical_to(more, data.validation.images).sum()):
        notify(f"{leaked} images without labels are validation images too: their accuracy is too high")
    return with_unlabelled(data.training, more), pixels_sha256(more)
