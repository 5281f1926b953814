"""`edgekit.distill`: train a small net on the outputs of one or several teachers.

result = edgekit.distill(teachers=["runs/wide"], data="fer2013.tar.gz", output="runs/student", epochs=6)
print(result.training.validation_accuracy, result.agreement)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from edgekit.contract import Fit
from edgekit.errors import InputError
from edgekit.files import check_writable
from edgekit.models.callbacks import Notify, StageProgress, ignore_message, of_stage
from edgekit.models.clip.architecture import Activation
from edgekit.models.clip.text_tower import text_tower_beside, write_text_tower
from edgekit.models.data import ImageSet, identical_to
from edgekit.models.data.balance import class_shares
from edgekit.models.data.fer2013 import SIDE_PX
from edgekit.models.data.unlabelled import load_unlabelled, with_unlabelled
from edgekit.models.distill.cache import FOLDER_NAME, agreement, distillation_targets, pixels_sha256
from edgekit.models.distill.losses import LossWeights, loss_weights
from edgekit.models.distill.opening import TeacherOptions, crops_of, open_teacher
from edgekit.models.distill.out_of_fold import out_of_fold_targets, teachers_by_fold
from edgekit.models.distill.task import DistillationConfig, DistillationTask, check_views, student_contract
from edgekit.models.distill.teacher_images import images_for_teacher
from edgekit.models.distill.teachers import Teacher, TeacherOutputs
from edgekit.models.distill.views import Views
from edgekit.models.distill.votes import VotePowers, with_votes
from edgekit.models.evaluation.evaluate import evaluate, open_classifier
from edgekit.models.model_loading import contract_for
from edgekit.models.nets.registry import require_no_space
from edgekit.models.torch_threads import set_torch_threads
from edgekit.models.training.distributed import is_first_process
from edgekit.models.training.finish import finish_net
from edgekit.models.training.loop import EpochCallback, StepCallback, check_output
from edgekit.models.training.options import TrainingOptions, options_from, require_choice
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
    read_training_data,
    run_training,
    with_precision,
)
from edgekit.models.training.start import input_values
from edgekit.preprocess import ImageU8


@dataclass(frozen=True, kw_only=True)
class DistillOptions(TrainingOptions):
    """Options of `distill`; see `TrainingOptions` for the options that all trainings share.

    - `teachers`: models, folders of trainings, prompts, CLIP files or open_clip names; several form an ensemble.
    - `student`: name of the net to train.
    - `temperature`: τ of both softmaxes; `kl_weight`, `ce_weight`, `cosine_weight`: see `losses.loss_weights`.
    - `views`: the views of each image that the teacher classifies once; default: "center-flip".
    - `on_the_fly`: the teacher classifies every augmented crop instead of fixed views. Only its outputs for the
      validation images, with which the student is compared, are cached.
    - `out_of_fold`: each image is classified only by teachers that were trained without this image
      (`TrainOptions.folds`).
    - `cache`: folder of the teacher's cached outputs; default: a folder in `output`.
    - `unlabelled`: folder or archive of images without labels, used in addition to the labelled ones.
    - `teacher_power`, `votes_power`: used with FER+ posteriors; see `votes.VotePowers`.
    - `clip`: the CLIP of the teacher's prompts; `descriptions`: class sentences of a CLIP without prompts;
      `activation`: the CLIP's activation function, if its file does not state it.
    - `calibrate`: whether a temperature is fitted on the validation images and folded into the student.

    Raises:
        InputError: A value is not allowed, or two options exclude each other.
    """

    teachers: Sequence[str]
    student: str = "edgecnn"
    temperature: float = 2.0
    kl_weight: float | None = None
    ce_weight: float | None = None
    cosine_weight: float | None = None
    views: Views | None = None
    on_the_fly: bool = False
    out_of_fold: bool = False
    cache: Path | None = None
    unlabelled: Path | None = None
    teacher_power: float | None = None
    votes_power: float | None = None
    clip: str | None = None
    descriptions: Path | None = None
    activation: Activation | None = None
    calibrate: bool = True

    _paths: ClassVar[tuple[str, ...]] = (*TrainingOptions._paths, "cache", "unlabelled", "descriptions")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.views is not None:
            require_choice("views", self.views, Views)
        if not self.teachers:
            raise InputError("no teacher is given")
        if self.on_the_fly and self.views:
            raise InputError("views and on-the-fly cannot be combined: leave out one of them")
        if self.on_the_fly and self.cache:
            raise InputError("cache and on-the-fly cannot be combined: leave out one of them")
        if self.out_of_fold and (self.on_the_fly or self.unlabelled):
            raise InputError("out-of-fold cannot be combined with on-the-fly or unlabelled: leave them out")

    @property
    def cache_folder(self) -> Path:
        """Folder of the teacher's cached outputs."""
        return self.cache or self.output / FOLDER_NAME

    def vote_powers(self) -> VotePowers | None:
        """Return the exponents by which teacher and FER+ votes are combined; None without FER+ posteriors.

        Raises:
            InputError: An exponent is given without posteriors or out of range, or `on_the_fly` is set.
        """
        named = (("teacher", self.teacher_power), ("votes", self.votes_power))
        given = {name: power for name, power in named if power is not None}
        if self.ferplus is None or self.ferplus_labels != "posterior":
            if given:
                raise InputError(f"{next(iter(given))}-power needs ferplus and ferplus-labels posterior")
            return None
        if self.on_the_fly:
            raise InputError("on-the-fly and ferplus-labels posterior cannot be combined: leave out one of them")
        return VotePowers(**given)


@dataclass(frozen=True)
class DistillationResult:
    """A finished distillation.

    Attributes:
        training: Paths, best epoch and reports of the student's training.
        teacher: Record of the teacher, as in the student's checkpoint.
        loss_weights: Weights of the parts of the loss.
        agreement: Share of the validation images on which student and teacher have the same label, 0..1; None in all
            but the first of several processes.
        member_agreement: The agreement of each member of an ensemble with the student, in the order of `teachers`.
        teacher_accuracy: The teacher's accuracy on the validation images, 0..1; None where `agreement` is None.
    """

    training: TrainingResult
    teacher: dict[str, Any]
    loss_weights: LossWeights
    agreement: float | None = None
    member_agreement: tuple[float, ...] = ()
    teacher_accuracy: float | None = None


def distill(
    options: DistillOptions | None = None,
    *,
    notify: Notify = ignore_message,
    progress: StageProgress | None = None,
    on_step: StepCallback | None = None,
    on_epoch: EpochCallback | None = None,
    **values: Any,
) -> DistillationResult:
    """Train a student on the outputs of teachers, then compare student and teachers on the validation images.

    The output folder receives the files of `edgekit.train`. The student of a CLIP has the CLIP's embedding space, so
    `edgekit.export` can give the student other labels without training. For a small CLIP of edgekit, the folder also
    receives its text tower, as best.text.safetensors.

    Args:
        options: The options. None: the options are made from `values`, the fields of `DistillOptions`.
        notify: Called with messages for the user.
        progress: Called with (stage, items done, items in total or None).
        on_step: Called after every optimiser step.
        on_epoch: Called after every epoch.

    Raises:
        InputError: An option, a teacher or the data is invalid, or the output folder contains another training.
        StorageError: The disk is full or read-only.
        UnavailableError: A CLIP that is given by name cannot be downloaded.
        GateError: A device would compute other pixels than the training; the checkpoint is kept.
    """
    options = options_from(DistillOptions, options, values)
    powers = options.vote_powers()
    set_torch_threads(options.threads)
    options = replace(options, recipe=DEFAULT_RECIPE if options.recipe == "auto" else options.recipe)
    recipe = net_recipe_of(options)
    check_prior_strength(options.prior_strength, recipe.balance)
    if recipe.mixup_alpha and not options.on_the_fly:
        raise InputError("mixup needs the teacher's outputs for mixed images: add on-the-fly, or leave mixup-alpha out")
    require_no_space(options.student)
    contract_for(options.student, ("any",), "any", gray=True)  # reports an unknown net before the data is read
    check_output(options.output, options.resume)
    crops = crops_of(options.teachers)
    fit: Fit = options.fit if options.fit != "auto" else crops[0].fit if crops else "square"
    data = read_training_data(options, notify=notify, progress=progress, cache="auto", fit=fit)
    check_training_images(data, notify)
    dataset = data.dataset
    teacher = open_teacher(options.teachers, dataset.classes, _teacher_options(options, dataset.name), notify)
    views = None if options.on_the_fly else options.views or "center-flip"
    check_views(views, recipe, teacher)
    weights = loss_weights(teacher, options.kl_weight, options.ce_weight, options.cosine_weight)
    pixels = input_values(options.student, options.init)
    contract = student_contract(options.student, teacher, dataset, fit, pixels)
    # Missing folds are reported before the teacher runs for hours.
    by_fold = teachers_by_fold(teacher, contract.crop) if options.out_of_fold else []
    if options.prior_strength:
        class_bias(contract.architecture)  # reports a net without one before the training
    initial = initial_weights(options, contract, notify)  # a wrong file is reported before the teacher runs for hours
    recipe = net_recipe_of(options, initial, notify)
    training, unlabelled_sha256 = _with_unlabelled(options, data, dataset.is_gray, fit, notify, progress)
    for_teacher = partial(
        images_for_teacher,
        teacher=teacher,
        data=options.data,
        contempt=options.contempt,
        fit=fit,
        folder=options.output,
        notify=notify,
        progress=progress,
    )
    config = DistillationConfig(weights, options.temperature, views, unlabelled_sha256, powers, options.out_of_fold)
    targets = None
    if views:
        targets = _targets(options, teacher, by_fold, training, views, for_teacher, notify, progress)
        if powers and training.targets is not None:
            prior = class_shares(training.labels, len(dataset.classes))
            targets = with_votes(targets, training.targets, prior, powers)
            training = replace(training, targets=None)
    task = DistillationTask(contract, recipe, training, data.validation, teacher, config, targets, initial)
    notify(f"{contract.architecture} learns from {teacher.name}; loss: {_formula(weights)}")
    precision = with_precision(options, contract, min(recipe.batch_size, len(training)), notify)
    job = make_job(options, data, task, recipe, {"teacher": teacher.record()}, precision)
    trained = run_training(job, options, data, notify, on_step, on_epoch)
    trained = finish_net(trained, options, data, options.calibrate, notify)
    result = DistillationResult(trained, teacher.record(), weights)
    if not is_first_process():
        return result  # the first process compares for all
    if teacher.text_tower is not None:
        write_text_tower(text_tower_beside(trained.checkpoint), teacher.text_tower)
    images = for_teacher(data.validation, unlabelled=None)
    return _compared(result, teacher, data.validation, images, options.cache_folder, notify, progress)


def _targets(
    options: DistillOptions,
    teacher: Teacher,
    by_fold: Sequence[Teacher],
    training: ImageSet,
    views: Views,
    for_teacher: Callable[..., ImageU8],
    notify: Notify,
    progress: StageProgress | None,
) -> TeacherOutputs:
    """Return the outputs of `teacher`, or of the teachers `by_fold`, for the views of the training images."""
    folder, reading = options.cache_folder, of_stage(progress, "running the teacher")
    check_writable(folder / "targets")  # a read-only folder is reported before the teacher runs for hours
    notify(
        f"{teacher.name} classifies {len(training)} training images; outputs that are already in {folder} are reused"
    )
    if by_fold:
        return out_of_fold_targets(by_fold, training, views, folder, reading, notify)
    images = training.images if views == "all-crops" else for_teacher(training, unlabelled=options.unlabelled)
    return distillation_targets(teacher, images, views, folder, reading, notify)


def _teacher_options(options: DistillOptions, dataset: str) -> TeacherOptions:
    return TeacherOptions(
        clip=options.clip,
        descriptions=options.descriptions,
        dataset=dataset,
        activation=options.activation,
        threads=options.threads,
        use_gpu=options.accelerator != "cpu",
    )


def _with_unlabelled(
    options: DistillOptions,
    data: TrainingData,
    is_gray: bool,
    fit: Fit,
    notify: Notify,
    progress: StageProgress | None,
) -> tuple[ImageSet, str | None]:
    """Return the training images with the unlabelled images appended, and the checksum of the unlabelled ones."""
    if options.unlabelled is None:
        return data.training, None
    reading = of_stage(progress, "reading unlabelled images")
    more = load_unlabelled(options.unlabelled, SIDE_PX, is_gray, reading, fit=fit, folder=options.output, notify=notify)
    notify(f"{len(more)} images without labels are used as well")
    if leaked := int(identical_to(more, data.validation.images).sum()):
        notify(f"{leaked} images without labels are validation images too: their accuracy is too high")
    return with_unlabelled(data.training, more), pixels_sha256(more)


def _compared(
    result: DistillationResult,
    teacher: Teacher,
    validation: ImageSet,
    images: ImageU8,
    folder: Path,
    notify: Notify,
    progress: StageProgress | None,
) -> DistillationResult:
    """Return the result with agreement and the teacher's accuracy, both measured on the validation images.

    `images` are these images for the teacher.
    """
    student_logits = evaluate(open_classifier(result.training.checkpoint), validation, "center-crop").logits
    reading = of_stage(progress, "comparing with the teacher")

    def outputs(of: Teacher) -> TeacherOutputs:
        return distillation_targets(of, images, "center", folder, reading, notify)

    members = tuple(agreement(student_logits, outputs(member).logits) for member in teacher.members)
    logits = outputs(teacher).logits
    return replace(
        result,
        agreement=agreement(student_logits, logits),
        member_agreement=members,
        teacher_accuracy=float((logits.argmax(axis=1) == validation.labels).mean()),
    )


def _formula(weights: LossWeights) -> str:
    return " + ".join(f"{weight:g} {name}" for name, weight in asdict(weights).items() if weight)
