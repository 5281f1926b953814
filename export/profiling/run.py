"""The public function `edgekit.profile`: cost per layer and estimated latency of a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekit.device.detection import create_detector
from edgekit.device.engines.classifier import Classifier
from edgekit.downloads import YUNET, UnavailableError, cached_download
from edgekit.errors import InputError
from edgekit.export.profiling.options import ProfileOptions
from edgekit.export.profiling.pipeline_estimate import PipelineEstimate, measure_loop
from edgekit.export.profiling.profile import Profile, profile_file
from edgekit.export.profiling.roofline import BoardEstimate, Estimate
from edgekit.known_boards import KNOWN_BOARDS
from edgekit.model_store import NCNN_SUFFIX, ONNX_SUFFIX, resolve_model
from edgekit.options import takes

# Numbers of threads that latencies are published for.
_BOARD_THREADS = (1, 4)


@dataclass(frozen=True)
class ProfileReport:
    """Profile of a model, and its estimates per board and number of threads.

    `loops` has the estimates of the whole loop; it is empty if `profile` was called without `pipeline`.
    """

    model: Path
    profile: Profile
    estimates: tuple[BoardEstimate[Estimate], ...]
    loops: tuple[BoardEstimate[PipelineEstimate], ...] = ()


@takes(ProfileOptions)
def profile(options: ProfileOptions) -> ProfileReport:
    """Count a model's cost per layer, and estimate its latency on boards.

    Example:
        report = edgekit.profile("default", board="pi3b+")
        print(report.profile.cost.macs, [case.estimate and case.estimate.high_ms for case in report.estimates])

    `ProfileOptions` describes the arguments.

    Raises:
        InputError: The model cannot be used, or the arguments do not fit.
    """
    if str(options.model).endswith(NCNN_SUFFIX):
        raise InputError(
            f"model '{options.model}' is an .ncnn file: profile the .onnx file of the same checkpoint (the estimates "
            "are from ncnn's latencies), and compare engines with 'edgekit bench'"
        )
    path = resolve_model(str(options.model), (ONNX_SUFFIX,))
    if options.board is not None and options.board not in KNOWN_BOARDS:
        raise InputError(f"board '{options.board}' is unknown: use one of {', '.join(KNOWN_BOARDS)}")
    boards = [KNOWN_BOARDS[options.board]] if options.board else list(KNOWN_BOARDS.values())
    cases = [(board, threads) for board in boards for threads in _BOARD_THREADS]
    profiled = profile_file(path)
    estimates = tuple(profiled.on(board, threads) for board, threads in cases)
    if not options.pipeline:
        return ProfileReport(path, profiled, estimates)
    detector = _detector(path, options)
    options.progress("measuring", 0, None)  # the total is not known
    loop = measure_loop(path, profiled, detector)
    loop_estimates = tuple(loop.on(board, threads) for board, threads in cases)
    return ProfileReport(path, profiled, estimates, loop_estimates)


def _detector(path: Path, options: ProfileOptions) -> Path | None:
    """Return the path of YuNet's file, which is downloaded if needed; None for a model that classifies whole images.

    Raises:
        InputError: The options give a detector for such a model, or the file is not available or cannot be loaded.
    """
    if Classifier(path, intra_op_threads=1).contract.subject == "image":
        if options.detector is not None:
            raise InputError(f"model '{path}' classifies the whole image: leave out the detector")
        return None
    try:
        detector = options.detector or cached_download(YUNET, notify=options.notify)
    except UnavailableError as error:
        raise InputError(f"{error}: give YuNet's file (--detector)") from error
    create_detector(str(detector), intra_op_threads=1, notify=options.notify)  # raises if it cannot be loaded
    return detector
