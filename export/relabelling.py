"""Other labels for an exported file: merged labels, labels described in text, or the label "uncertain"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import nn

from edgekit.contract import Contract, LabelMap
from edgekit.errors import InputError
from edgekit.export.options import ExportOptions, NewClasses
from edgekit.models.callbacks import Notify
from edgekit.models.checkpoint import Checkpoint
from edgekit.models.clip.descriptions import Descriptions, descriptions_for, read_descriptions, require_labels
from edgekit.models.data.merging import parse_merges, report_removed
from edgekit.models.distill.relabel import relabel_by_text
from edgekit.models.model_loading import build_merged_net, build_net, merge_net
from edgekit.preprocess import FloatArray
from edgekit.text import one_line

# A label by text should be predicted for a share of the images in this range; fewer images show nothing.
_LEAST_SHARE, _MOST_SHARE, _LEAST_IMAGES = 0.01, 0.95, 50


def relabelled(
    checkpoint: Checkpoint, options: ExportOptions, text_tower: Path | None = None
) -> tuple[nn.Module, Contract]:
    """Return a checkpoint's net and contract, with the labels and the threshold that the options of an export state.

    There are two ways to other labels: new classes described by text, and merges. A merged label has the sum of the old
    labels' probabilities; an old label in no merge is removed. If both are given, the merges merge the new classes.
    Merged and new labels lose the checkpoint's threshold, see `with_other_labels`; `uncertain_below` sets another one.

    Args:
        checkpoint: A net.
        options: The options of the export.
        text_tower: File of the teacher's text tower, for new classes; it need not exist.

    Raises:
        InputError: There is one label only, two are equal, a merge does not fit the labels, or `clip` or `prompts` are
            given without new classes.
    """
    if options.without_ensemble:
        raise InputError("without_ensemble (--no-ensemble) is for trained prompts: leave it out")
    classes = described_classes(new_classes(options), options.notify)
    if not classes and (options.clip or options.prompts):
        raise InputError("clip and prompts are for new classes: give some new classes, or leave both out")
    net: nn.Module
    merges = _merges(options, tuple(classes) or checkpoint.contract.labels) if options.merges else None
    if classes:
        # With merges, a class in no merge is not encoded, because it would be removed again.
        kept = {name: classes[name] for name in merges.old} if merges else classes
        prompts = None if options.prompts is None else Path(options.prompts)
        net, contract = relabel_by_text(checkpoint, kept, options.clip, prompts, options.notify, text_tower)
        if merges:
            net, contract = merge_net(net, contract, merges)
    elif merges:
        net, contract = build_merged_net(checkpoint, merges)
    else:
        net, contract = build_net(checkpoint), checkpoint.contract
    if options.uncertain_below is not None:
        contract = replace(contract, uncertain_below=options.uncertain_below)
    return net, contract


def _merges(options: ExportOptions, labels: tuple[str, ...]) -> LabelMap:
    """Return the merged labels that the options state, and report the labels in no merge, which are removed."""
    merges = parse_merges(options.merges, labels)
    if len(merges.labels) < 2:
        raise InputError(f"merge '{options.merges[0]}' alone leaves one label: a classifier needs at least two")
    report_removed(merges, labels, options.notify)
    return merges


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


def report_shares(labels: Sequence[str], logits: FloatArray, notify: Notify) -> None:
    """Warn about labels by text that are predicted for almost all or almost no images: they may be worded badly.

    `logits` (N, labels) are those of images of a data set.
    """
    if len(logits) < _LEAST_IMAGES:  # too few for a share
        return
    shares = np.bincount(logits.argmax(axis=1), minlength=len(labels)) / len(logits)  # (labels,)
    for name, share in zip(labels, shares.tolist(), strict=True):
        if share < _LEAST_SHARE or share > _MOST_SHARE:
            found = f"label '{one_line(name)}' is predicted for {share:.1%} of {len(logits)} images"
            notify(
                f"warning: {found}: if that is wrong, describe the labels in other words, or merge old ones (--merge)"
            )


def described_classes(classes: NewClasses, notify: Notify) -> Descriptions:
    """Return the sentences that describe each new class; classes without sentences get shipped or default ones.

    Raises:
        InputError: There is one class only, or two are equal (see `require_labels`).
    """
    if not classes:
        return {}
    require_labels(classes)
    if isinstance(classes, Mapping):
        return {name: tuple(sentences) for name, sentences in classes.items()}
    return descriptions_for(classes, notify=notify)
