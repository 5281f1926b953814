"""`edgekit.distill`: train a small net on the outputs of one or several teachers; `DistillationTask` has the loss.

result = edgekit.distill(teachers=["runs/wide"], data="fer2013.tar.gz", output="runs/student", epochs=6)
print(result.training.validation_accuracy, result.agreement)
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.contract import Contract, Fit
from edgekit.errors import InputError
from edgekit.files import check_writable
from edgekit.models.callbacks import Progress, of_stage
from edgekit.models.clip.text_tower import text_tower_beside, write_text_tower
from edgekit.models.data import DataSet, ImageSet
from edgekit.models.distill.targets import images_for_teacher, kept_targets, targets_of
from edgekit.models.distill.teachers import Teacher, TeacherOptions, TeacherOutputs, fit_of, open_teacher, subject_of
from edgekit.models.evaluation.evaluate import evaluate, open_classifier
from edgekit.models.model_loading import InputValues, contract_for, require_net
from edgekit.models.nets.embedding_net import EmbeddingNet
from edgekit.models.nets.registry import embedding_name, require_no_space
from edgekit.models.torch_threads import set_torch_threads
from edgekit.models.training.init_weights import initial_weights, input_values
from edgekit.models.training.loop import check_output
from edgekit.models.training.machine import is_first_process
from edgekit.models.training.options import DistillOptions
from edgekit.models.training.recipes import DEFAULT_RECIPE
from edgekit.models.training.run import (
    TrainingResult,
    check_training_images,
    net_recipe_of,
    read_training_data,
    train_net,
)
from edgekit.models.training.task import NetTask, StepLoss
from edgekit.options import takes
from edgekit.preprocess import ImageU8

TARGETS_NAME = "teacher.safetensors"


@dataclass(frozen=True)
class LossWeights:
    """Weights of KL divergence from the teacher, cross-entropy with the labels, and cosine distance of embeddings."""

    kl: float
    ce: float
    cosine: float

    def __post_init__(self) -> None:
        if not self.kl + self.ce + self.cosine > 0:
            raise InputError("all weights of the loss are 0: give at least one weight above 0")


def loss_weights(teacher: Teacher, kl: float | None, ce: float | None, cosine: float | None) -> LossWeights:
    """Return the loss weights; a weight that is None gets its default.

    With a classifier as teacher the defaults are 1 for the divergence and 0.1 for the cross-entropy with the labels,
    which corrects the teacher's errors. With a CLIP they are 1 for the divergence, 1 for the cosine distance and 0 for
    the labels, as in PromptKD (CVPR 2024), which uses unlabelled images.

    Raises:
        InputError: All weights are 0, or the teacher has no embeddings to compare with.
    """
    if cosine and teacher.space is None:
        raise InputError(f"cosine-weight is {cosine}, but teacher '{teacher.name}' has no embeddings: leave it out")
    has_space = teacher.space is not None
    return LossWeights(  # raises if all are 0
        kl=1.0 if kl is None else kl,
        ce=(0.0 if has_space else 0.1) if ce is None else ce,
        cosine=(1.0 if has_space else 0.0) if cosine is None else cosine,
    )


@dataclass
class DistillationTask(NetTask):
    """Trains a registry net on a teacher's outputs, in the teacher's embedding space if the teacher has one.

    Validation uses the labels.

    Attributes:
        teacher: A teacher for the contract's labels; see `student_contract`.
        weights: Weights of the parts of the loss.
        temperature: τ of both softmaxes.
        targets: The teacher's outputs for all of `training`.
    """

    teacher: Teacher
    weights: LossWeights
    temperature: float
    targets: TeacherOutputs

    def fingerprint(self) -> dict[str, Any]:
        """Return architecture, labels, teacher and distillation settings."""
        weights, temperature = asdict(self.weights), self.temperature
        settings = {"teacher_sha256": self.teacher.sha256, "weights": weights, "temperature": temperature}
        return {**super().fingerprint(), "distillation": settings}

    def build(self, device: torch.device) -> nn.Module:
        """Return a new student; in an embedding space its class vectors are the teacher's."""
        net, space, embeddings = super().build(device), self.teacher.space, self.targets.embeddings
        self._logits = torch.from_numpy(self.targets.logits).to(device)  # (N, classes)
        self._embeddings = None if embeddings is None else torch.from_numpy(embeddings).to(device)  # (N, embed_dim)
        if space is not None:
            assert isinstance(net, EmbeddingNet)
            net.set_classes(torch.from_numpy(space.class_vectors), space.logit_scale)
            self._scaled_vectors = (net.logit_scale * net.class_vectors).to(device)  # for the loss
        return net

    def loss(self, net: nn.Module, indices: Tensor, numbers: Tensor) -> StepLoss:
        """Return the weighted sum of the losses on augmented images; see `LossWeights`.

        `indices` are those of the training images, `numbers` the random numbers of their augmentation.
        """
        images, weights = self.normalised(self.augmented(indices, numbers)), self.weights
        if self._embeddings is None:  # the teacher has no embedding space
            embeddings, logits = None, net(images).float()
        else:
            embeddings = net(images, embeddings_only=True).float()  # unit vectors (n, embed_dim)
            logits = embeddings @ self._scaled_vectors.T  # (n, classes)
        loss = logits.new_zeros(len(indices))  # (n,)
        if weights.kl:
            loss = loss + weights.kl * kl_divergence(logits, self._logits[indices], self.temperature)
        if weights.ce:
            loss = loss + weights.ce * self.label_loss(logits, indices)
        if weights.cosine and embeddings is not None and self._embeddings is not None:
            cosines = (embeddings * self._embeddings[indices]).sum(dim=1)
            loss = loss + weights.cosine * (1 - cosines)
        is_correct = logits.argmax(dim=1) == self.examples.labels[indices]
        return StepLoss(loss.mean(), is_correct.sum())


def kl_divergence(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Return τ² KL(teacher ‖ student) of the softmaxes at temperature τ, in nats: (N,).

    The factor τ² makes the size of the gradients independent of τ (Hinton et al., arXiv 1503.02531, section 2).
    """
    student = F.log_softmax(logits / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits / temperature, dim=1)
    return temperature**2 * F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1)


def student_contract(name: str, teacher: Teacher, dataset: DataSet, fit: Fit, values: InputValues) -> Contract:
    """Return the contract of a teacher's student, with the input of `values`, for images that were read with `fit`.

    The architecture is `name`, or `name@WIDTH` in the teacher's embedding space.

    Raises:
        InputError: `name` already has an embedding space, or as for `contract_for` and `subject_of`.
    """
    architecture = name if teacher.space is None else embedding_name(name, teacher.space.embed_dim)
    contract = contract_for(architecture, dataset.classes, dataset.name, dataset.is_gray, fit, values=values)
    return replace(contract, subject=subject_of(teacher))


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
    """
    notify = options.notify
    set_torch_threads(options.threads)
    options = replace(options, recipe=DEFAULT_RECIPE if options.recipe == "auto" else options.recipe)
    require_no_space(options.student)
    # Errors of options and files are reported first, before the data is read and the teacher runs for hours.
    require_net(options.student)
    check_output(options.output, options.resume)
    net_recipe_of(options)

    fit: Fit = options.fit if options.fit != "auto" else fit_of(options.teachers)
    data = read_training_data(options, fit=fit)
    check_training_images(data, notify)
    teacher = _open_teacher(options, data.dataset)
    weights = loss_weights(teacher, options.kl_weight, options.ce_weight, options.cosine_weight)

    contract = student_contract(
        options.student, teacher, data.dataset, fit, input_values(options.student, options.init)
    )
    initial = initial_weights(options, contract)
    recipe = net_recipe_of(options, initial, notify)
    task = DistillationTask(
        contract=contract,
        recipe=recipe,
        training=data.training,
        validation=data.validation,
        teacher=teacher,
        weights=weights,
        temperature=options.temperature,
        targets=_teacher_outputs(teacher, data.training, options, fit),
        initial=initial,
        calibration=data.calibration if options.calibrate else None,
    )
    terms = " + ".join(f"{weight:g} {name}" for name, weight in asdict(weights).items() if weight)
    notify(f"{contract.architecture} learns from {teacher.name}; loss: {terms}")
    trained = train_net(options, data, task, recipe, teacher=teacher.record())

    result = DistillationResult(trained, teacher.record(), weights)
    if not is_first_process():
        return result  # the first process compares for all
    if teacher.text_tower is not None:
        write_text_tower(text_tower_beside(trained.checkpoint), teacher.text_tower)
    images = images_for_teacher(data.validation, teacher, options, fit)
    return _compared(result, teacher, data.validation, images, of_stage(options.progress, "comparing with the teacher"))


def _open_teacher(options: DistillOptions, dataset: DataSet) -> Teacher:
    """Return the teacher of the options, for the classes of the data."""
    use_gpu = options.accelerator != "cpu"
    teacher_options = TeacherOptions(options.clip, options.descriptions, dataset.name, options.threads, use_gpu)
    return open_teacher(options.teachers, dataset.classes, teacher_options, options.notify)


def _teacher_outputs(teacher: Teacher, training: ImageSet, options: DistillOptions, fit: Fit) -> TeacherOutputs:
    """Return what the teacher computes for the training images; an interrupted computation is continued."""
    path = options.output / TARGETS_NAME
    check_writable(path)
    options.notify(f"{teacher.name} classifies {len(training)} training images")
    images = images_for_teacher(training, teacher, options, fit)
    return kept_targets(teacher, images, path, of_stage(options.progress, "running the teacher"))


def _compared(
    result: DistillationResult, teacher: Teacher, validation: ImageSet, images_for_teacher: ImageU8, progress: Progress
) -> DistillationResult:
    """Return the result with the teacher's accuracy, and its agreement with the student, on the validation images.

    `images_for_teacher` are the same images, read again in a larger size if the teacher takes one.
    """
    student = open_classifier(result.training.checkpoint)
    student_labels = evaluate(student, validation, "center-crop").logits.argmax(axis=1)
    teacher_labels = targets_of(teacher, images_for_teacher, progress, mirrored=False).logits.argmax(axis=1)
    accuracy = float((teacher_labels == validation.labels).mean())
    agreement = float((student_labels == teacher_labels).mean())
    return replace(result, agreement=agreement, teacher_accuracy=accuracy)
