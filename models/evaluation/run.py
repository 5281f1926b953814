"""`edgekit.evaluate`: accuracy, confusion matrix and calibration of a model on a data set.

result = edgekit.evaluate("runs/mine/best.safetensors", "fer2013.tar.gz", protocol="ten-crop")
print(f"{result.accuracy:.2%} of {result.total} images", result.per_class)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgekit.downloads import default_cache_dir
from edgekit.models.callbacks import Notify, StageProgress, ignore_message, of_stage
from edgekit.models.data import DataSet, distinct_images, duplicated, split_to_measure, usual_training_split
from edgekit.models.data.ferplus import contempt_majority, with_ferplus
from edgekit.models.data.merging import merged
from edgekit.models.data.pixels import DataFit
from edgekit.models.data.readers import load_dataset
from edgekit.models.data.sheets import check_sheet_folder
from edgekit.models.evaluation.bands import brightness_of
from edgekit.models.evaluation.error_sheets import save_errors
from edgekit.models.evaluation.evaluate import CropClassifier, Evaluation, Protocols, aligned, open_named
from edgekit.models.evaluation.evaluate import evaluate as evaluate_images
from edgekit.models.torch_threads import set_torch_threads


def evaluate(
    model: str | Path | CropClassifier,
    data: str | Path | DataSet,
    *,
    split: str | None = None,
    protocol: Protocols = "center-crop",
    without_duplicates: bool = False,
    merges: Sequence[str] = (),
    contempt: str = "drop",
    ferplus: str | Path | None = None,
    errors: str | Path | None = None,
    threads: int | None = None,
    notify: Notify = ignore_message,
    progress: StageProgress | None = None,
) -> Evaluation:
    """Classify one split of a data set with a model and return the predictions.

    Args:
        model: Name of a shipped model, path of an exported file or a checkpoint, or a classifier.
        data: Path of a data set, which is read according to the model's contract; or a data set that is already read. A
            CLIP in torch needs a data set from `read_evaluation_data` with the fit "clip".
        split: Name of the split; default: `PrivateTest` or `test`.
        protocol: "center-crop", "center-flip" or "ten-crop"; see `edgekit.models.evaluation.evaluate`.
        without_duplicates: Whether to remove images that are pixel-identical to an image of another split.
        merges: Texts NEW=OLD,OLD that merge classes of the data; classes that no text names are removed.
        contempt: Treatment of the class contempt: "drop", "keep", or the class that images of contempt are counted as.
            A data set that is already read is not changed.
        ferplus: CSV of FER+ votes: the labels are then the majority of the votes, see
            `edgekit.models.data.ferplus.with_ferplus`.
        errors: Folder for contact sheets of the wrongly classified images, see
            `edgekit.models.evaluation.error_sheets.save_errors`.
        threads: Number of CPU threads; None: chosen for the machine.
        notify: Called with messages for the user.
        progress: Called with (stage, images done, images in total or None).

    Returns:
        The predictions, with accuracy, recall per class, confusion matrix and calibration as properties. With
        `ferplus`, `eight_class_accuracy` is the accuracy under FER+'s usual protocol, in which contempt is a class.

    Raises:
        InputError: The model, the data or the split cannot be used.
        StorageError: The contact sheets cannot be written.
    """
    if errors is not None:
        check_sheet_folder(Path(errors), None if isinstance(data, DataSet) else Path(data))
    set_torch_threads(threads)
    classifier = open_named(model, threads) if isinstance(model, str | Path) else model
    contract = classifier.contract
    # The votes are for FER-2013's own classes, which are merged after the majorities are known.
    merge_read, merge_voted = (merges, ()) if ferplus is None else ((), merges)
    if not isinstance(data, DataSet):
        crop = contract.crop
        data = read_evaluation_data(
            data, crop.resize_hw[0], crop.fit, merge_read, contempt, notify=notify, progress=progress
        )
    else:
        data = merged(data, merge_read, notify)
    split = split_to_measure(data, split)
    part = distinct_images(data, split) if without_duplicates else data.split(split)
    of_split, of_contempt = len(part), None
    if ferplus is not None:
        train = usual_training_split(data.splits) or split
        is_contempt = contempt_majority(data, Path(ferplus), split, train)
        of_contempt = int((is_contempt & ~duplicated(data, split) if without_duplicates else is_contempt).sum())
        voted = with_ferplus(data, Path(ferplus), "majority", train, notify)
        # Images are compared with all images of the other splits, also with those without a majority of FER+ votes.
        mixed = replace(voted, splits={**data.splits, split: voted.split(split)})
        data, part = voted, distinct_images(mixed, split) if without_duplicates else voted.split(split)
    left_out = of_split - len(part)  # before the merge, which removes images that have a majority
    if merge_voted:
        data = merged(replace(data, splits={split: part}), merge_voted, notify)
        part, of_contempt = data.split(split), None
    images = aligned(data, part, contract)
    result = evaluate_images(classifier, images, protocol, of_stage(progress, "classifying"))
    measures = {"brightness": brightness_of(images.images)}
    result = replace(result, dataset=data.name, split=split, left_out=left_out, contempt=of_contempt, measures=measures)
    if errors is not None:
        save_errors(Path(errors), images.images, result)
    return result


def read_evaluation_data(
    path: str | Path,
    size_px: int,
    fit: DataFit,
    merges: Sequence[str] = (),
    contempt: str = "drop",
    *,
    notify: Notify = ignore_message,
    progress: StageProgress | None = None,
) -> DataSet:
    """Return a data set with images of `size_px` and merged classes.

    Images that need more than a quarter of the free memory are in a file in the user's cache folder.

    Raises:
        InputError: The data or a merge is invalid.
    """
    dataset = load_dataset(
        Path(path),
        size_px,
        of_stage(progress, "reading images"),
        contempt=contempt,
        notify=notify,
        fit=fit,
        cache="auto",
        cache_folder=default_cache_dir(),
    )
    return merged(dataset, merges, notify)
