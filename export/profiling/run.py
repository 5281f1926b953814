"""The public function `edgekit.profile`: cost, layer times and estimated latency of a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekit.device.detection import create_detector
from edgekit.device.engines.classifier import Classifier
from edgekit.device.engines.session import has_contract, open_session, read_contract
from edgekit.downloads import YUNET, UnavailableError, cached_download
from edgekit.errors import InputError
from edgekit.export.profiling.options import LoopOptions, ProfileOptions
from edgekit.export.profiling.pipeline_estimate import PipelineEstimate, measure_loop
from edgekit.export.profiling.profile import Profile, has_free_size, profile_file
from edgekit.export.profiling.roofline import BoardEstimate, Estimate
from edgekit.known_boards import KNOWN_BOARDS
from edgekit.model_store import NCNN_SUFFIX, ONNX_SUFFIX, resolve_model
from edgekit.models.callbacks import Notify
from edgekit.options import takes

# Numbers of threads that latencies are published for.
_BOARD_THREADS = (1, 4)


@dataclass(frozen=True)
class ProfileReport:
    """Profile of a model, and its estimates per board and number of threads.

    `loops` has the estimates of the whole loop; it is empty if `profile` was called without `loop`.
    """

    model: Path
    profile: Profile
    estimates: tuple[BoardEstimate[Estimate], ...]
    loops: tuple[BoardEstimate[PipelineEstimate], ...] = ()


@takes(ProfileOptions)
def profile(options: ProfileOptions) -> ProfileReport:
    """Count a model's cost per layer, measure its layers on this machine, and estimate its latency on boards.

    Example:
        report = edgekit.profile("default", board="pi3b+")
        print(report.profile.cost.macs, [case.estimate and case.estimate.high_ms for case in report.estimates])

    `ProfileOptions` describes the arguments.

    Raises:
        InputError: The model cannot be used, or the arguments do not fit.
    """
    if str(options.model).endswith(NCNN_SUFFIX):
        raise InputError(
            f"model '{options.model}' is an .ncnn file, and ncnn measures no layer times: profile the .onnx file of "
            "the same checkpoint (the estimates are from ncnn's latencies), and compare engines with 'edgekit bench'"
        )
    path = resolve_model(str(options.model), (ONNX_SUFFIX,))
    is_free = has_free_size(path)
    size_wh = options.size_wh
    if size_wh and not is_free:
        raise InputError(f"model '{path}' has a fixed input size: leave size out")
    if is_free and size_wh is None:
        size_wh = _contract_size_wh(path)
    if options.board is not None and options.board not in KNOWN_BOARDS:
        raise InputError(f"board '{options.board}' is unknown: use one of {', '.join(KNOWN_BOARDS)}")
    # None for a model of whole images too.
    detector = _loop_detector(path, options.loop, options.notify) if options.loop else None
    boards = [KNOWN_BOARDS[options.board]] if options.board else list(KNOWN_BOARDS.values())
    options.progress("measuring", 0, None)
    found = profile_file(
        path,
        size_wh=size_wh,
        intra_op_threads=options.threads,
        seconds=options.seconds,
    )
    cases = [(each, count) for each in boards for count in _BOARD_THREADS]
    estimates = tuple(found.on(*case) for case in cases)
    if options.loop is None:
        return ProfileReport(path, found, estimates)
    loop = measure_loop(options.loop, path, found, detector)
    return ProfileReport(path, found, estimates, tuple(loop.on(*case) for case in cases))


def _contract_size_wh(path: Path) -> tuple[int, int] | None:
    session = open_session(path, 1, level="none")
    if not has_contract(session, path):
        return None
    height, width = read_contract(session, path).input.size_hw
    return width, height


def _loop_detector(path: Path, loop: LoopOptions, notify: Notify) -> Path | None:
    """Return the path of YuNet's file; None for a model that classifies whole images.

    Classifier and YuNet are loaded once here, so that errors are raised before the measurement.
    """
    if Classifier(path, 1).contract.subject == "image":
        if loop != LoopOptions(classify_every=loop.classify_every):
            raise InputError(f"model '{path}' classifies the whole image: leave out the detector's settings")
        return None
    try:
        detector = loop.detector_model or cached_download(YUNET, notify=notify)
    except UnavailableError as error:
        raise InputError(f"{error}: give YuNet's file (--detector)") from error
    create_detector(str(detector), intra_op_threads=1, notify=notify)
    return detector
