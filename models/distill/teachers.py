"""Teachers: functions that map images to logits, and to embeddings if the teacher has an embedding space.

They are opened by name or path: models, folders of trainings, trained prompts, CLIPs. The input of a CLIP is the whole
face image.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from edgekit.contract import METADATA_KEY, CropSpec, Fit, InputSpec, Subject
from edgekit.errors import InputError
from edgekit.files import real_path, sha256_of
from edgekit.model_store import BEST_NAME, CHECKPOINT_SUFFIX, NCNN_SUFFIX, ONNX_SUFFIX, resolve_model
from edgekit.models.callbacks import Notify, ignore_message
from edgekit.models.checkpoint import load_checkpoint
from edgekit.models.clip.checkpoint import METADATA_KEY as PROMPTS_KEY
from edgekit.models.clip.checkpoint import ClipIdentity, build_prompted, load_prompts, require_clip
from edgekit.models.clip.descriptions import Descriptions, descriptions_for
from edgekit.models.clip.hicropl import PromptedClip, frozen_classifier
from edgekit.models.clip.load import FrozenClip, load_clip
from edgekit.models.clip.text_tower import TextTower
from edgekit.models.clip.transformers_layout import weights_file
from edgekit.models.evaluation.evaluate import CropClassifier, TorchClassifier, open_classifier
from edgekit.models.model_loading import build_net
from edgekit.models.tensor_files import read_header
from edgekit.preprocess import FloatArray, ImageU8, to_gray, to_tensor

Kind = Literal["classifier", "clip", "prompted-clip", "ensemble"]


@dataclass(frozen=True)
class EmbeddingSpace:
    """Embedding space of a CLIP: unit `class_vectors` float32 (classes, embed_dim), and the scale of the logits."""

    class_vectors: FloatArray
    logit_scale: float

    @property
    def embed_dim(self) -> int:
        """Number of dimensions of the embedding space."""
        return int(self.class_vectors.shape[1])


@dataclass(frozen=True)
class TeacherOutputs:
    """Outputs of a teacher: `logits` float32 (N, classes), and unit vectors `embeddings` (N, embed_dim) or None."""

    logits: FloatArray
    embeddings: FloatArray | None = None


@dataclass(frozen=True)
class Teacher:
    """A trained model whose outputs a student learns.

    Attributes:
        kind: Kind of the model.
        name: The teacher's name in messages.
        labels: Labels in the order of the logits.
        sha256: Checksum of everything that the teacher's outputs depend on, except the labels.
        predict: Function that returns the outputs for crops uint8 (N, H, W, 1 gray or 3 R, G, B) of any size.
        space: The teacher's embedding space; None: the teacher has none.
        members: The members of an ensemble; empty for a single model.
        subject: What a classifier's contract states that it classifies; None: not stated.
        crop: The crop of a classifier's contract; None: the teacher takes images of any size.
        text_tower: Encoder of other labels by text, for a small CLIP of edgekit.
        facts: Further fields of the teacher's record in a checkpoint.
    """

    kind: Kind
    name: str
    labels: tuple[str, ...]
    sha256: str
    predict: Callable[[ImageU8], TeacherOutputs]
    space: EmbeddingSpace | None = None
    members: tuple[Teacher, ...] = ()
    subject: Subject | None = None
    crop: CropSpec | None = None
    text_tower: TextTower | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """Return the record of the teacher that a student's checkpoint contains."""
        members = {"members": [member.record() for member in self.members]} if self.members else {}
        return {"kind": self.kind, "name": self.name, "sha256": self.sha256, **self.facts, **members}


def name_of(path: Path) -> str:
    """Return a teacher's name for messages: the file name, preceded by its folder for a result of a training."""
    return f"{real_path(path).parent.name}/{path.name}" if path.name == BEST_NAME else path.name


def for_labels(teacher: Teacher, labels: Sequence[str], notify: Notify = ignore_message) -> Teacher:
    """Return the teacher with its logits in the order of `labels`; names are compared without regard to case.

    Args:
        teacher: The teacher.
        labels: Labels of the data set.
        notify: Called with a message if the teacher has classes that the data lacks; they are removed.

    Raises:
        InputError: The teacher lacks one of the labels.
    """
    chosen = [_position(teacher, label) for label in labels]
    surplus = [name for index, name in enumerate(teacher.labels) if index not in chosen]
    if surplus:
        notify(f"teacher '{teacher.name}' has classes that the data lacks; they are removed: {', '.join(surplus)}")

    def predict(crops: ImageU8) -> TeacherOutputs:
        outputs = teacher.predict(crops)  # its embeddings do not depend on the labels
        return replace(outputs, logits=outputs.logits[:, chosen])

    space = teacher.space
    return replace(
        teacher,
        labels=tuple(labels),
        predict=predict,
        space=space and replace(space, class_vectors=space.class_vectors[chosen]),
    )


def ensemble(teachers: Sequence[Teacher]) -> Teacher:
    """Return several teachers for the same labels as one teacher; a single teacher is returned unchanged.

    The probabilities of the ensemble are the mean of its members' probabilities, because logits of different nets
    differ in scale.
    """
    if len(teachers) == 1:
        return teachers[0]

    def predict(crops: ImageU8) -> TeacherOutputs:
        return TeacherOutputs(mean_of_probabilities([teacher.predict(crops).logits for teacher in teachers]))

    return Teacher(
        kind="ensemble",
        name=" + ".join(teacher.name for teacher in teachers),
        labels=teachers[0].labels,
        sha256=hashlib.sha256("\n".join(teacher.sha256 for teacher in teachers).encode()).hexdigest(),
        predict=predict,
        members=tuple(teachers),
    )


def subject_of(teacher: Teacher) -> Subject:
    """Return what a teacher's student classifies: the subject of the members that state one, or else faces.

    Raises:
        InputError: The members have different subjects.
    """
    members = teacher.members or (teacher,)
    # For each stated subject, the name of a member that states it. A CLIP states none.
    stated = {member.subject: member.name for member in members if member.subject}
    if len(stated) > 1:
        raise InputError(
            f"teacher '{stated['face']}' classifies faces, '{stated['image']}' whole images: use teachers of one kind"
        )
    return next(iter(stated), "face")


def mean_of_probabilities(logits: Sequence[FloatArray]) -> FloatArray:
    """Return logits (…, classes) whose softmax is the mean of the softmaxes of `logits`."""
    stacked = np.stack(logits).astype(np.float64)
    stacked -= np.logaddexp.reduce(stacked, axis=-1, keepdims=True)  # logarithms of the probabilities
    mean: FloatArray = (np.logaddexp.reduce(stacked, axis=0) - np.log(len(logits))).astype(np.float32)
    return mean


def to_teacher_input(crops: ImageU8, size_hw: tuple[int, int], gray: bool = False) -> ImageU8:
    """Return crops resized to a teacher's input (bicubic, antialiased), with one channel if `gray`."""
    if gray and crops.shape[-1] == 3:
        crops = to_gray(crops[..., ::-1])[..., np.newaxis]  # `to_gray` takes B, G, R
    if crops.shape[1:3] == size_hw:
        return crops
    planes = torch.from_numpy(np.ascontiguousarray(crops)).permute(0, 3, 1, 2).float()
    planes = F.interpolate(planes, size_hw, mode="bicubic", antialias=True, align_corners=False)
    resized: ImageU8 = planes.round_().clamp_(0, 255).byte().permute(0, 2, 3, 1).numpy()
    return resized


def _position(teacher: Teacher, label: str) -> int:
    """Return the index of a teacher's label, compared without regard to case if none is equal."""
    if label in teacher.labels:
        return teacher.labels.index(label)
    found = [index for index, name in enumerate(teacher.labels) if name.casefold() == label.casefold()]
    if len(found) != 1:  # none, or several that differ in case only
        raise InputError(
            f"teacher '{teacher.name}' lacks the data's class '{label}': its labels are {', '.join(teacher.labels)}"
        )
    return found[0]


@dataclass(frozen=True)
class TeacherOptions:
    """Options for opening teachers.

    Attributes:
        clip: File or name of the CLIP that the prompts were trained for.
        descriptions: File of class sentences for a CLIP without prompts, or a folder with a file per data set.
        dataset: Name of the data set, which selects the file of a folder of descriptions.
        threads: Number of threads of ONNX Runtime.
        use_gpu: Whether to use a GPU if there is one.
    """

    clip: str | None = None
    descriptions: Path | None = None
    dataset: str = ""
    threads: int | None = None
    use_gpu: bool = False


def open_teacher(
    sources: Sequence[str], labels: Sequence[str], options: TeacherOptions, notify: Notify = ignore_message
) -> Teacher:
    """Return a teacher for `labels`; several sources form an ensemble.

    A source is a model's name or file (.onnx, .safetensors), the folder of a training, a file of prompts, a CLIP
    file, or the name of a CLIP in open_clip.

    Raises:
        InputError: A source cannot be used or lacks one of the labels, or an option applies to none of the sources.
        UnavailableError: A CLIP that is given by name cannot be downloaded.
    """
    device = torch.device("cuda" if options.use_gpu and torch.cuda.is_available() else "cpu")
    places = [_resolve(source) for source in sources]
    kinds = [_kind(place) for place in places]
    _refuse_unused(kinds, options)
    teachers = []
    for place, kind in zip(places, kinds, strict=True):
        path = Path(place)
        if kind == "classifier":
            teacher = _classifier_teacher(path, device, options.threads)
        elif kind == "prompts":
            clip_config = load_prompts(path).clip.config
            clip = load_clip(require_clip(path, options.clip), clip_config.activation)
            teacher = prompted_teacher(path, clip, device)
        else:  # a CLIP without prompts: a file, or a name in open_clip
            clip = load_clip(place)
            sentences = descriptions_for(labels, options.descriptions, notify, dataset=options.dataset)
            teacher = zero_shot_teacher(clip, sentences, device)
        teachers.append(for_labels(teacher, labels, notify))  # all with their logits in one order, for the mean
    return ensemble(teachers)


def _classifier_teacher(path: Path, device: torch.device, threads: int | None) -> Teacher:
    """Return an edgekit checkpoint or exported file as a teacher.

    Raises:
        InputError: The file cannot be used.
    """
    classifier: CropClassifier
    if path.suffix == ONNX_SUFFIX:
        classifier = open_classifier(path, threads)
    else:
        checkpoint = load_checkpoint(path)
        classifier = TorchClassifier(build_net(checkpoint), checkpoint.contract, device)  # maybe on a GPU
    contract = classifier.contract

    def predict(crops: ImageU8) -> TeacherOutputs:
        return TeacherOutputs(
            classifier.logits(to_teacher_input(crops, contract.input.size_hw, contract.crop.grayscale))
        )

    return Teacher(
        kind="classifier",
        name=name_of(path),
        labels=contract.labels,
        sha256=sha256_of(path),
        predict=predict,
        subject=contract.subject,
        crop=contract.crop,
        facts={"architecture": contract.architecture},
    )


def fit_of(sources: Sequence[str]) -> Fit:
    """Return how images become square for the first source that is a classifier; "square" for CLIPs.

    Raises:
        InputError: As `open_teacher`.
    """
    classifiers = [Path(place) for place in map(_resolve, sources) if _kind(place) == "classifier"]
    return open_classifier(classifiers[0], intra_op_threads=1).contract.crop.fit if classifiers else "square"


def _resolve(source: str) -> str:
    """Return the path of a source; the name of a CLIP in open_clip is returned unchanged."""
    path = Path(source)
    if not path.is_dir() and (path.exists() or "/" in source):
        return source
    return str(weights_file(path) or resolve_model(source, (ONNX_SUFFIX, CHECKPOINT_SUFFIX)))


def _kind(place: str) -> str:
    """Return the kind of a resolved source: "classifier", "prompts" or "clip"."""
    path = Path(place)
    if path.suffix == NCNN_SUFFIX:
        raise InputError(
            f"teacher '{place}' is an ncnn file, which cannot be a teacher: give its checkpoint or .onnx file"
        )
    if path.suffix == ONNX_SUFFIX:
        return "classifier"
    if not path.exists() or path.suffix != CHECKPOINT_SUFFIX:  # a name in open_clip, or a file of another program
        return "clip"
    try:
        metadata = read_header(path)
    except InputError as error:
        raise InputError(f"teacher '{path}' is not a complete {CHECKPOINT_SUFFIX} file ({error})") from error
    if PROMPTS_KEY in metadata:
        return "prompts"
    return "classifier" if METADATA_KEY in metadata else "clip"


def _refuse_unused(kinds: Sequence[str], options: TeacherOptions) -> None:
    """Refuse options that apply to no teacher of these kinds."""
    if options.clip and "prompts" not in kinds:
        raise InputError("no teacher has prompts: leave clip out")
    if options.descriptions and "clip" not in kinds:
        raise InputError("no teacher is a CLIP without prompts: leave descriptions out")


def zero_shot_teacher(clip: FrozenClip, descriptions: Descriptions, device: torch.device) -> Teacher:
    """Return a CLIP as a teacher whose class vectors are the encoded descriptions.

    Raises:
        InputError: A description is longer than the CLIP's context.
    """
    clip = clip.to(device)
    # The outputs also depend on activation and normalisation, which the weights do not contain.
    described = json.dumps([clip.weights_sha256, asdict(clip.config), *descriptions.items()])
    return _clip_teacher(
        kind="clip",
        name=clip.source,
        sha256=hashlib.sha256(described.encode()).hexdigest(),
        labels=tuple(descriptions),
        clip=clip,
        image_features=lambda images: F.normalize(clip.encode_image(images), dim=-1),
        class_vectors=frozen_classifier(clip, descriptions),
    )


def prompted_teacher(path: Path, clip: FrozenClip, device: torch.device) -> Teacher:
    """Return a CLIP with the trained prompts in the file at `path` as a teacher.

    Raises:
        InputError: The file does not contain prompts that can be loaded, or they belong to another CLIP.
    """
    checkpoint = load_prompts(path)
    net = build_prompted(checkpoint, clip).to(device)
    with torch.no_grad():
        class_vectors = net.text_features()
    return _clip_teacher(
        kind="prompted-clip",
        name=name_of(path),
        sha256=checkpoint.outputs_sha256(),
        labels=net.classes,
        clip=net.clip,
        image_features=net.image_features,
        class_vectors=class_vectors,
        prompted=net,
        gray=bool(checkpoint.training.get("gray")),
    )


def _clip_teacher(
    *,
    kind: Kind,
    name: str,
    sha256: str,
    labels: tuple[str, ...],
    clip: FrozenClip,
    image_features: Callable[[Tensor], Tensor],
    class_vectors: Tensor,
    prompted: PromptedClip | None = None,
    gray: bool = False,
) -> Teacher:
    """Return a CLIP with or without prompts as a teacher.

    Args:
        kind: Kind of the teacher.
        name: Its name in messages.
        sha256: Checksum of all that its outputs depend on.
        labels: Labels in the order of the class vectors.
        clip: The CLIP.
        image_features: Returns unit vectors (N, embed_dim) of normalised images.
        class_vectors: Unit vectors (classes, embed_dim).
        prompted: The CLIP with its prompts, if it has prompts.
        gray: Whether images are converted to gray.
    """
    side_px, config = clip.image_size_px, clip.config
    spec = InputSpec("images", (side_px, side_px), "rgb", 1 / 255, config.image_mean, config.image_std)
    scale = float(clip.logit_scale)
    vectors = class_vectors.float().cpu().numpy()

    @torch.no_grad()
    def predict(crops: ImageU8) -> TeacherOutputs:
        resized = to_teacher_input(crops, spec.size_hw, gray)
        images = torch.from_numpy(to_tensor(resized, spec)).to(class_vectors.device)  # (N, 3, side, side)
        embeddings = image_features(images).float().cpu().numpy()
        return TeacherOutputs(np.float32(scale) * embeddings @ vectors.T, embeddings)

    identity = ClipIdentity(clip.source, clip.sha256, clip.weights_sha256, config)
    return Teacher(
        kind=kind,
        name=name,
        labels=labels,
        sha256=sha256,
        predict=predict,
        space=EmbeddingSpace(vectors, scale),
        # A CLIP of another project does not state the texts of its training. It has no tower, because a tower's file
        # contains only the token embeddings of these texts.
        text_tower=TextTower(clip, prompted, sha256) if clip.texts else None,
        facts={"clip": asdict(identity)},
    )
