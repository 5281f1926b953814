"""`edgekit.evaluate`: accuracy, confusion matrix and calibration of a model on a data set.

result = edgekit.evaluate("runs/mine/best.safetensors", "fer2013.tar.gz", protocol="ten-crop")
print(f"{result.accuracy:.2%} of {result.total} images", result.per_class)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgekit.downloads import default_cache_dir
from edgekit.models.callbacks import Notify, of_stage
from edgekit.models.data import DataSet, usual_split
from edgekit.models.data.ferplus import contempt_majority, with_ferplus
from edgekit.models.data.merging import merged, report_removed
from edgekit.models.data.readers import DataFit, load_dataset
from edgekit.models.evaluation.evaluate import Evaluation, aligned, open_named
from edgekit.models.evaluation.evaluate import evaluate as evaluate_images
from edgekit.models.evaluation.options import EvaluateOptions, EvaluationOptions
from edgekit.models.torch_threads import set_torch_threads
from edgekit.options import takes


@takes(EvaluateOptions)
def evaluate(options: EvaluateOptions) -> Evaluation:
    """Classify one split of a data set with a model and return the predictions.

    `EvaluateOptions` describes the arguments.

    Returns:
        The predictions, with accuracy, recall per class, confusion matrix and calibration as properties. With
        `ferplus`, `eight_class_accuracy` is the accuracy under FER+'s usual protocol, in which contempt is a class.

    Raises:
        InputError: The model, the data or the split cannot be used.
    """
    set_torch_threads(options.threads)
    classifier = open_named(options.model, options.threads)
    contract, crop = classifier.contract, classifier.contract.crop
    data = options.data
    if not isinstance(data, DataSet):
        data = read_evaluation_data(data, crop.resize_hw[0], crop.fit, options)
    split = data.chosen_split(options.split, "test")
    # Images without a majority; images whose majority is contempt, or None where `eight_class_accuracy` is undefined.
    left_out, contempt_count = 0, None
    if options.ferplus is not None:  # before the classes are merged, because the votes are for FER-2013's own classes
        images_in_split = len(data.split(split))
        data, contempt_count = _with_majorities(data, split, Path(options.ferplus), options.notify)
        left_out = images_in_split - len(data.split(split))
    if options.merges:
        data = merged(data, options.merges, options.notify)
        contempt_count = None  # FER+'s protocol has no merged classes
    if contract.label_map is not None and not set(data.classes) <= set(contract.labels):  # `aligned` merges them
        report_removed(contract.label_map, data.classes, options.notify)
        contempt_count = None
    if data.name == contract.provenance.dataset and split == usual_split(data.splits, "train"):
        options.notify(
            f"warning: the model was trained on data of this name, '{data.name}': split '{split}' may contain its "
            "training pictures, on which it is more accurate than on new ones; choose another split (--split)"
        )
    images = aligned(data, data.split(split), contract)
    result = evaluate_images(classifier, images, options.protocol, of_stage(options.progress, "classifying"))
    return replace(result, dataset=data.name, split=split, left_out=left_out, contempt=contempt_count)


def _with_majorities(data: DataSet, split: str, votes: Path, notify: Notify) -> tuple[DataSet, int]:
    """Return the data with the majorities of FER+ votes as labels, and how many images of `split` have contempt."""
    train = usual_split(data.splits, "train") or split
    contempt_count = int(contempt_majority(data, votes, split, train).sum())
    return with_ferplus(data, votes, "majority", train, notify), contempt_count


def read_evaluation_data(
    path: str | Path, size_px: int, fit: DataFit, options: EvaluationOptions, merges: Sequence[str] = ()
) -> DataSet:
    """Return a data set with images of `size_px` and merged classes.

    Of `options`, only `contempt`, `notify` and `progress` are used. Images that need more than a quarter of the free
    memory are in a file in the user's cache folder.

    Raises:
        InputError: The data or a merge is invalid.
    """
    dataset = load_dataset(
        Path(path),
        size_px,
        of_stage(options.progress, "reading images"),
        contempt=options.contempt,
        notify=options.notify,
        fit=fit,
        cache_folder=default_cache_dir(),
    )
    return merged(dataset, merges, options.notify)
