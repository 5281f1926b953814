"""Opens teachers given by name or path: models, folders of trainings, trained prompts, CLIPs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from edgekit.contract import METADATA_KEY, CropSpec
from edgekit.device.engines.session import open_session, read_contract
from edgekit.errors import InputError
from edgekit.files import sha256_of
from edgekit.model_store import CHECKPOINT_SUFFIX, NCNN_SUFFIX, ONNX_SUFFIX, resolve_model
from edgekit.models.callbacks import Notify, ignore_message
from edgekit.models.checkpoints.checkpoint import load_checkpoint
from edgekit.models.checkpoints.tensorfile import read_header
from edgekit.models.clip.checkpoint import METADATA_KEY as PROMPTS_KEY
from edgekit.models.clip.checkpoint import load_prompts, require_clip
from edgekit.models.clip.descriptions import descriptions_for
from edgekit.models.clip.load import load_clip
from edgekit.models.distill.clips import prompted_teacher, zero_shot_teacher
from edgekit.models.distill.teachers import Teacher, TeacherOutputs, ensemble, for_labels, name_of, to_teacher_input
from edgekit.models.evaluation.evaluate import CropClassifier, TorchClassifier, open_classifier
from edgekit.models.model_loading import build_net
from edgekit.preprocess import ImageU8


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
        else:
            clip = load_clip(place)
            sentences = descriptions_for(labels, options.descriptions, notify, dataset=options.dataset)
            teacher = zero_shot_teacher(clip, sentences, device)
        teachers.append(for_labels(teacher, labels, notify))
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
        classifier = TorchClassifier(build_net(checkpoint), checkpoint.contract, device)
    contract = classifier.contract

    def predict(crops: ImageU8) -> TeacherOutputs:
        return TeacherOutputs(
            classifier.logits(to_teacher_input(crops, contract.input.size_hw, contract.crop.grayscale))
        )

    height, width = (
        cropped / full for cropped, full in zip(contract.input.size_hw, contract.crop.resize_hw, strict=True)
    )
    return Teacher(
        kind="classifier",
        name=name_of(path),
        labels=contract.labels,
        sha256=sha256_of(path),
        predict=predict,
        share_hw=(height, width),
        subject=contract.subject,
        crop=contract.crop,
        facts={"architecture": contract.architecture},
    )


def crops_of(sources: Sequence[str]) -> list[CropSpec]:
    """Return the crops in the contracts of the sources that are classifiers.

    Raises:
        InputError: As `open_teacher`.
    """
    paths = [Path(place) for place in map(_resolve, sources) if _kind(place) == "classifier"]
    return [
        (
            read_contract(open_session(path, 1, level="none"), path)
            if path.suffix == ONNX_SUFFIX
            else load_checkpoint(path).contract
        ).crop
        for path in paths
    ]


def _resolve(source: str) -> str:
    """Return the path of a source; the name of a CLIP in open_clip is returned unchanged."""
    path = Path(source)
    if not path.is_dir() and (path.exists() or "/" in source):
        return source
    return str(resolve_model(source, (ONNX_SUFFIX, CHECKPOINT_SUFFIX)))


def _kind(place: str) -> str:
    path = Path(place)
    if path.suffix == NCNN_SUFFIX:
        raise InputError(
            f"teacher '{place}' is an ncnn file, which cannot be a teacher: give its checkpoint or .onnx file"
        )
    if path.suffix == ONNX_SUFFIX:
        return "classifier"
    if not path.exists() or path.suffix != CHECKPOINT_SUFFIX:
        return "clip"
    try:
        metadata = read_header(path)
    except InputError as error:
        raise InputError(f"teacher '{path}' is not a complete {CHECKPOINT_SUFFIX} file ({error})") from error
    if PROMPTS_KEY in metadata:
        return "prompts"
    return "classifier" if METADATA_KEY in metadata else "clip"


def _refuse_unused(kinds: Sequence[str], options: TeacherOptions) -> None:
    unused = (
        (options.clip and "prompts" not in kinds, "clip", "has prompts"),
        (options.descriptions and "clip" not in kinds, "descriptions", "is a CLIP without prompts"),
    )
    for given, name, kind in unused:
        if given:
            raise InputError(f"no teacher {kind}: leave {name} out")
