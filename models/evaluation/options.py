"""Options of `edgekit.evaluate` and `edgekit.evaluate_photos`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgekit.models.callbacks import Notify, StageProgress, ignore_message
from edgekit.options import Options, option
from edgekit.shared_options import contempt, detector, merges, min_face_px, threads

if TYPE_CHECKING:
    from edgekit.models.data import DataSet
    from edgekit.models.evaluation.evaluate import CropClassifier

Protocols = Literal["center-crop", "center-flip", "ten-crop"]


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions(Options):
    """How images are evaluated."""

    title = "Data"
    split: str | None = option(
        "--split", "Split to evaluate on. Default: PrivateTest or test; with --photos, all splits.", metavar="NAME"
    )
    contempt: str = contempt(needs="--data")
    merges: Sequence[str] = merges(needs="--data")
    ferplus: str | Path | None = option(
        "--ferplus",
        "FER+ votes for FER-2013. The majority of the votes replaces each label.",
        metavar="CSV",
        needs="--data",
    )
    protocol: Protocols = option(
        "--protocol",
        "center-crop: one crop, as in videos on a device. center-flip: mean of the crop and its mirror image. "
        "ten-crop: mean of ten crops, as in papers.",
        default="center-crop",
        needs="--data",
        section="Figures",
    )
    threads: int | None = threads()
    notify: Notify = ignore_message
    progress: StageProgress | None = None


@dataclass(frozen=True)
class EvaluateOptions(EvaluationOptions):
    """Options of `edgekit.evaluate`.

    Attributes:
        model: Name of a shipped model, path of an exported file or a checkpoint, or a classifier.
        data: Path of a data set, which is read according to the model's contract; or a data set that is already read. A
            CLIP in torch needs a data set from `read_evaluation_data` with the fit "clip".
        notify: Called with messages for the user.
        progress: Called with (stage, images done, images in total or None).
    """

    model: str | Path | CropClassifier
    data: str | Path | DataSet


@dataclass(frozen=True)
class EvaluatePhotosOptions(Options):
    """Options of `edgekit.evaluate_photos`.

    Attributes:
        models: Names of shipped models, paths of exported files or checkpoints, or classifiers.
        photos: A folder or a .tar, .tar.gz or .tgz archive with class folders, or with a file photos.csv (columns path
            and label; see `edgekit.models.data.photos`).
        split: Name of a split, such as the folder above the class folders; None: all photographs.
        mirror: Average the probabilities of each face and its mirror image, as `edgekit run` does with pictures. Whole
            photographs are not mirrored.
        threads: Number of CPU threads; None: chosen for the machine.
        notify: Called with messages for the user.
        progress: Called with (stage, photographs done, photographs in total or None).
    """

    title = "Photographs"
    models: Sequence[str | Path | CropClassifier]
    photos: str | Path | None = option(
        "--photos",
        "Whole photographs in class folders or in a folder with photos.csv, also as .tar.gz.",
        metavar="DIR",
        excludes="--data",
    )
    _: KW_ONLY
    split: str | None = None
    detector: str | Path | None = detector(needs="--photos")
    min_face_px: int = min_face_px(needs="--photos")
    mirror: bool = True
    threads: int | None = None
    notify: Notify = ignore_message
    progress: StageProgress | None = None
