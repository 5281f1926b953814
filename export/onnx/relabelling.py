"""Other labels for an exported file: merged labels, labels described in text, or the label "uncertain"."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from torch import nn

from edgekit.contract import Contract
from edgekit.errors import InputError
from edgekit.export.onnx.options import ExportOptions, NewClasses
from edgekit.models.callbacks import Notify
from edgekit.models.checkpoints.checkpoint import Checkpoint
from edgekit.models.clip.descriptions import Descriptions, descriptions_for, read_descriptions, require_labels
from edgekit.models.clip.text_tower import text_tower_beside
from edgekit.models.data.merging import parse_merges, report_removed
from edgekit.models.distill.relabel import relabel_by_text
from edgekit.models.model_loading import build_merged_net, build_net, merge_net

# The file has one vector per sentence, and each is encoded during the export.
_MAX_LABELS, _MAX_SENTENCES = 1000, 256
# Returns the net with its new labels, and its contract.
Relabel: TypeAlias = Callable[[Checkpoint], tuple[nn.Module, Contract]]


def relabelling(
    merges: Sequence[str],
    classes: NewClasses,
    clip: str | None,
    prompts: Path | None,
    notify: Notify,
    uncertain_below: float | None = None,
    text_tower: Path | None = None,
) -> Relabel | None:
    """Return the function that gives a checkpoint other labels, or None if the checkpoint keeps its labels.

    Args:
        merges: Texts `NEW=OLD,OLD`: the new label's probability is the sum of the old labels' probabilities. Old labels
            that no text names are removed. With `classes`, the old labels are those of `classes`.
        classes: New labels of a CLIP's student, encoded by the teacher's text tower.
        clip: The teacher's CLIP, by name or file, for `classes`.
        prompts: The teacher's trained prompts, if it has prompts, for `classes`.
        notify: Called with a line about removed labels, classes described by the template, and how far
            labels by text are from what the CLIP was trained on.
        uncertain_below: The contract's `uncertain_below`; None: the checkpoint's, or 0 with other labels.
        text_tower: File of the teacher's text tower, for `classes` without `clip` and `prompts`; it need not exist.

    Raises:
        InputError: There is one class only, two are equal, or `clip` or `prompts` are given without `classes`. The
            returned function raises it for merges that do not fit the labels, and for an invalid `uncertain_below`.
    """
    relabel = _other_labels(merges, classes, clip, prompts, notify, text_tower)
    if uncertain_below is None:
        return relabel

    def with_threshold(checkpoint: Checkpoint) -> tuple[nn.Module, Contract]:
        net, contract = relabel(checkpoint) if relabel else (build_net(checkpoint), checkpoint.contract)
        return net, replace(contract, uncertain_below=uncertain_below)

    return with_threshold


def _other_labels(
    merges: Sequence[str],
    classes: NewClasses,
    clip: str | None,
    prompts: Path | None,
    notify: Notify,
    text_tower: Path | None,
) -> Relabel | None:
    if not classes and (clip or prompts):
        raise InputError("clip and prompts are for new classes: give some new classes, or leave both out")
    if not classes and not merges:
        return None
    descriptions = described_classes(classes, notify)

    def relabel(checkpoint: Checkpoint) -> tuple[nn.Module, Contract]:
        if not descriptions:
            return build_merged_net(checkpoint, _groups(merges, checkpoint.contract.labels, notify))
        if not merges:
            return relabel_by_text(checkpoint, descriptions, clip, prompts, notify, text_tower)
        groups = _groups(merges, tuple(descriptions), notify)
        kept = {name: descriptions[name] for group in groups.values() for name in group}
        return merge_net(*relabel_by_text(checkpoint, kept, clip, prompts, notify, text_tower), groups)

    return relabel


def _groups(merges: Sequence[str], labels: tuple[str, ...], notify: Notify) -> dict[str, tuple[str, ...]]:
    groups = parse_merges(merges, labels)
    if len(groups) < 2:
        raise InputError(f"merge '{merges[0]}' alone leaves one label: a classifier needs at least two")
    report_removed(groups, labels, notify)
    return groups


def relabelling_of(checkpoint: Path, options: ExportOptions) -> Relabel | None:
    """Return `relabelling` for the options of an export; the errors are the same."""
    prompts = None if options.prompts is None else Path(options.prompts)
    tower, threshold = text_tower_beside(checkpoint), options.uncertain_below
    return relabelling(options.merges, new_classes(options), options.clip, prompts, options.notify, threshold, tower)


def new_classes(options: ExportOptions) -> NewClasses:
    """Return the new labels of `classes` or of the file `classes_file`.

    Raises:
        InputError: Both are given, or the file cannot be used.
    """
    if options.classes_file is None:
        return options.classes
    if options.classes:
        raise InputError("--class and --classes both set the labels: give one of them")
    return read_descriptions(Path(options.classes_file))


def described_classes(classes: NewClasses, notify: Notify) -> Descriptions:
    """Return the sentences of each new class; classes without sentences get the shipped ones or the template.

    Raises:
        InputError: There is one class only, two are equal (see `require_labels`), or there are too many.
    """
    require_labels(classes)
    if len(classes) > _MAX_LABELS:
        raise InputError(f"{len(classes)} new labels: at most {_MAX_LABELS} are possible")
    if isinstance(classes, Mapping):
        for name, sentences in classes.items():
            if len(sentences) > _MAX_SENTENCES:
                raise InputError(
                    f"label '{name}' has {len(sentences)} sentences: at most {_MAX_SENTENCES} are possible"
                )
        return {name: tuple(sentences) for name, sentences in classes.items()}
    return descriptions_for(classes, notify=notify)
