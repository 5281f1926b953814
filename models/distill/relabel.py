"""New labels for a trained student in an embedding space, without training: only its class vectors are replaced.

Each sentence of a label has a class vector of its own, and the logit of the label is that of its most similar sentence.
So a label may stand for faces that do not look alike, such as "negative" for angry and sad faces: the mean of their
vectors would be far from both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekit.contract import Contract
from edgekit.errors import InputError
from edgekit.files import sha256_of
from edgekit.model_store import CHECKPOINT_SUFFIX, resolve_model
from edgekit.models.callbacks import Notify, ignore_message
from edgekit.models.checkpoint import Checkpoint
from edgekit.models.clip.checkpoint import ClipIdentity, PromptCheckpoint, build_prompted, load_prompts
from edgekit.models.clip.load import FrozenClip, load_clip
from edgekit.models.clip.text_tower import TextTower, read_text_tower
from edgekit.models.model_loading import build_net, with_other_labels
from edgekit.models.nets.embedding_net import CLASS_VECTORS, EmbeddingNet
from edgekit.text import counted, one_line
from edgekit.typed_json import convert

_PROMPTED = "prompted-clip"
# Captions that are encoded at a time.
_BATCH = 256


@dataclass(frozen=True)
class _ClipTeacher:
    """Record of a CLIP teacher in a student's checkpoint."""

    kind: str
    name: str
    sha256: str
    clip: ClipIdentity


def relabel_by_text(
    checkpoint: Checkpoint,
    descriptions: Mapping[str, Sequence[str]],
    clip: str | None,
    prompts: Path | None,
    notify: Notify = ignore_message,
    text_tower: Path | None = None,
) -> tuple[EmbeddingNet, Contract]:
    """Return the student with new classes, encoded by the text tower of its teacher, and its contract.

    Args:
        checkpoint: A student in an embedding space.
        descriptions: Sentences of each new label; see `edgekit.models.clip.descriptions`.
        clip: Name or file of the teacher's CLIP.
        prompts: File of the teacher's prompts, or the folder of their training, if it had prompts.
        notify: Called with a line per label about its distance from the captions that the CLIP was trained on, and
            about sentences that are left out because of their words, if the CLIP's file states the captions.
        text_tower: File of the teacher's text tower, which is used if it exists, and `clip` and `prompts` are None.

    Raises:
        InputError: The student has no embedding space, the files are not its teacher's, or a sentence is longer than
            the context.
        UnavailableError: A CLIP that is given by name cannot be downloaded.
    """
    _require_space(checkpoint)
    tower = _teachers_tower(_teacher_of(checkpoint), clip, prompts, text_tower)
    descriptions = _with_known_words(tower.clip, descriptions, notify)
    vectors = tower.vectors(descriptions)  # (sentences, labels, embed_dim)
    # Only a damaged text tower has other vectors. A CLIP that is given has been compared with the teacher's.
    if vectors.shape[2] != checkpoint.state[CLASS_VECTORS].shape[1]:
        raise InputError(
            f"text tower '{text_tower}' has vectors of another length than the student: make the student again"
        )
    # A prompted tower encodes the name of a label together with each sentence.
    texts = {name: (name, *sentences) if tower.prompted else sentences for name, sentences in descriptions.items()}
    report_distances(tower.clip, texts, vectors, notify)
    net = build_net(checkpoint)
    assert isinstance(net, EmbeddingNet)
    net.replace_classes(vectors)
    return net, with_other_labels(checkpoint.contract, labels=tuple(descriptions), label_map=None)


def _teachers_tower(
    teacher: _ClipTeacher, clip: str | None, prompts: Path | None, text_tower: Path | None
) -> TextTower:
    """Return the teacher's text tower: from `clip` and `prompts` if one is given, else from the file `text_tower`."""
    file = text_tower if text_tower is not None and text_tower.is_file() else None
    if file is not None and clip is None and prompts is None:
        return _tower_beside(teacher, file)
    if file is not None and teacher.kind == _PROMPTED and (clip is None or prompts is None):
        # Raised here, because the errors of `_tower_of_clip` do not state that the file alone is enough.
        raise InputError(f"'{file}' has the text tower of CLIP and prompts: leave out clip and prompts, or give both")
    return _tower_of_clip(teacher, clip, prompts, text_tower)


def _tower_beside(teacher: _ClipTeacher, path: Path) -> TextTower:
    """Return the text tower in a file beside the student, which must be that of the student's teacher."""
    tower = read_text_tower(path)
    if tower.teacher_sha256 != teacher.sha256:
        raise InputError(
            f"'{path}' is not the text tower of the student's teacher '{teacher.name}': give the teacher's CLIP "
            "(--clip), or make the student again"
        )
    return tower


def _tower_of_clip(teacher: _ClipTeacher, clip: str | None, prompts: Path | None, text_tower: Path | None) -> TextTower:
    """Return the text tower of the teacher's CLIP and prompts; `text_tower` is only named in an error."""
    is_prompted = teacher.kind == _PROMPTED
    if prompts is not None and not is_prompted:
        raise InputError("the student's teacher had no prompts: leave prompts out")
    if clip is None:
        cure = "give this CLIP (--clip)"
        if text_tower is not None:
            cure += f", or put its text tower, the file '{text_tower.name}', beside the student"
        raise InputError(
            f"new classes need the text tower of the student's teacher, CLIP '{teacher.clip.source}' "
            f"(sha256 {teacher.clip.sha256}): {cure}"
        )
    if is_prompted and prompts is None:
        raise InputError(f"the student's teacher had prompts ('{teacher.name}'): give their file (--prompts)")
    if prompts is None:
        frozen = load_clip(clip, teacher.clip.config.activation)
        _check_plain(frozen, teacher.clip)
        return TextTower(frozen, prompted=None, teacher_sha256=teacher.sha256)
    if prompts.is_dir():
        prompts = resolve_model(str(prompts), (CHECKPOINT_SUFFIX,))
    trained = _teachers_prompts(prompts, teacher)
    frozen = load_clip(clip, teacher.clip.config.activation)
    return TextTower(frozen, prompted=build_prompted(trained, frozen), teacher_sha256=teacher.sha256)


def _with_known_words(
    clip: FrozenClip, descriptions: Mapping[str, Sequence[str]], notify: Notify
) -> dict[str, Sequence[str]]:
    """Return the descriptions without sentences that contain words of no caption, if a label has other sentences.

    The vector of such a sentence can be near to the images of any other label, which then get the wrong one.
    """
    kept = dict(descriptions)
    if not clip.texts:
        return kept
    known_words = _words(clip.texts)
    for name, sentences in descriptions.items():
        known = [text for text in sentences if _words([text]) <= known_words]
        left_out = [text for text in sentences if text not in known]
        if known and left_out:
            kept[name] = known
            words = ", ".join(sorted(_words(left_out) - known_words))
            notify(
                f"warning: label '{name}': {counted(len(left_out), 'sentence')} of {len(sentences)} left out, such as "
                f"'{left_out[0]}': the captions of the CLIP's training do not contain {words}"
            )
    return kept


def report_distances(clip: FrozenClip, texts: Mapping[str, Sequence[str]], vectors: Tensor, notify: Notify) -> None:
    """Report the caption nearest to each class, and the words that are in no caption.

    Only unknown words cause a warning. A low cosine does not, because in a small CLIP's space all texts are close.

    Args:
        clip: The CLIP; nothing is reported if its file does not state its captions.
        texts: The texts of each class that the vectors are computed from.
        vectors: Class vectors (sentences, classes, embed_dim), in the order of `texts`.
        notify: Called with a line per class.
    """
    if not clip.texts:
        return
    known_words = _words(clip.texts)
    encoded = [clip.encode_text(tokens) for tokens in torch.split(clip.tokenize(clip.texts), _BATCH)]
    captions = F.normalize(torch.cat(encoded), dim=1)  # (captions, embed_dim)
    cosines = (vectors @ captions.T).amax(dim=0)  # (sentences, classes, captions) → (classes, captions)
    for (name, class_texts), of_class in zip(texts.items(), cosines, strict=True):
        nearest = int(of_class.argmax())
        place = f"nearest caption '{one_line(clip.texts[nearest])}', cosine {float(of_class[nearest]):.3f}"
        unknown_words = sorted(_words(class_texts) - known_words)
        if unknown_words:
            notify(
                f"warning: label '{name}' may not work: the captions of the CLIP's training do not contain "
                f"{', '.join(unknown_words)} ({place})"
            )
        else:
            notify(f"label '{name}': {place}")


def _words(texts: Iterable[str]) -> set[str]:
    """Return the words, numbers and symbols in texts; of a text without any, the text itself."""
    found: set[str] = set()
    for text in texts:
        found.update(re.findall(r"[^\W_]+|[^\w\s.,:;'\"!?()-]", text.casefold()) or [text])
    return found


def _check_plain(clip: FrozenClip, identity: ClipIdentity) -> None:
    """Check that a CLIP without prompts is the teacher's."""
    if clip.weights_sha256 != identity.weights_sha256:
        raise InputError(f"CLIP '{clip.source}' is not the teacher's CLIP '{identity.source}': the weights differ")
    if clip.config != identity.config:
        raise InputError(
            f"CLIP '{clip.source}' has the weights of the teacher's CLIP '{identity.source}', but another "
            f"architecture (activation {clip.config.activation}, the teacher's has {identity.config.activation}): "
            "give the teacher's file"
        )


def _teachers_prompts(path: Path, teacher: _ClipTeacher) -> PromptCheckpoint:
    """Return the prompts in a file.

    Raises:
        InputError: They are not those of the teacher: neither its file, nor the result of an equal training.
    """
    checkpoint = load_prompts(path)
    # Students that were distilled before 2026-11-27 record the SHA-256 of the file.
    if teacher.sha256 not in (checkpoint.outputs_sha256(), sha256_of(path)):
        raise InputError(f"prompts '{path}' are not the teacher's, '{teacher.name}': give those or train the same ones")
    return checkpoint


def _require_space(checkpoint: Checkpoint) -> None:
    """Check that a net has an embedding space."""
    if CLASS_VECTORS not in checkpoint.state:
        raise InputError(
            f"{checkpoint.contract.architecture} has no embedding space, so its labels are fixed: "
            "use distilled, make a student of a CLIP, merge labels, or train on the new labels"
        )


def _teacher_of(checkpoint: Checkpoint) -> _ClipTeacher:
    """Return the record of the CLIP teacher in a student's checkpoint."""
    if "teacher" not in checkpoint.training:
        raise InputError("the checkpoint has no record of its CLIP teacher: distil it again")
    try:
        return convert(checkpoint.training["teacher"], _ClipTeacher, "field")
    except InputError as error:
        raise InputError(
            f"the checkpoint has no valid record of its CLIP teacher ({error}): distil it again"
        ) from error
