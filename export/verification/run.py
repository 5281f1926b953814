"""The public function `edgekit.verify`: comparison of an exported file with its source, from image file to label."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekit.contract import Contract
from edgekit.device.engines.classifier import Classifier
from edgekit.device.engines.engine import contract_in, device_suffixes, engine_of
from edgekit.device.engines.session import has_contract, open_session
from edgekit.errors import InputError
from edgekit.export.profiling.cost import load_graph
from edgekit.export.verification.comparison import Parity, measure_parity, parity_faults, read_images
from edgekit.export.verification.deployable import device_faults, oldest_runtime
from edgekit.export.verification.options import VerifyOptions
from edgekit.model_store import CHECKPOINT_SUFFIX, ONNX_SUFFIX, resolve_model
from edgekit.models.clip.checkpoint import is_prompts_file
from edgekit.models.evaluation.evaluate import open_classifier
from edgekit.models.torch_threads import set_torch_threads
from edgekit.options import takes
from edgekit.tolerance import Tolerance, tolerance_for


@dataclass(frozen=True)
class ParityCheck:
    """Differences of the file from its source, the tolerance, and the file's contract."""

    parity: Parity
    tolerance: Tolerance
    contract: Contract

    @property
    def allowed_difference(self) -> float | None:
        """Largest allowed difference of a logit; None if it is not checked."""
        return self.tolerance.allowed_difference(self.parity.reference_logits)


@dataclass(frozen=True)
class VerifyReport:
    """Result of `verify`; `faults` has one line per fault and is empty if the file passed.

    `engine` is the engine's name. `oldest_runtime` is the version of the oldest supported onnxruntime (None for other
    engines). `check` is None if the file cannot run on a device. `is_itself`: the file was compared with itself,
    so its weights and its contract are not checked.
    """

    model: Path
    against: Path
    engine: str
    faults: tuple[str, ...]
    oldest_runtime: str | None
    check: ParityCheck | None
    is_itself: bool

    @property
    def passed(self) -> bool:
        """Whether the file has no fault."""
        return not self.faults


@takes(VerifyOptions)
def verify(options: VerifyOptions) -> VerifyReport:
    """Classify the same images with training code and device code, from image file to label, and compare the results.

    Example:
        report = edgekit.verify("mine.onnx", "runs/mine/best.safetensors", "fer2013.tar.gz", limit=500)
        print(report.passed, report.faults, report.check and report.check.parity.logits_difference)

    `VerifyOptions` describes the arguments.

    Raises:
        InputError: A file or the data cannot be used. A file that a device cannot run is a fault in the report.
    """
    path = resolve_model(str(options.model), device_suffixes(str(options.model)))
    source = resolve_model(str(options.against), (CHECKPOINT_SUFFIX, ONNX_SUFFIX))
    engine = engine_of(path)
    _check_source(source, path)
    set_torch_threads(options.threads)
    is_itself = path.samefile(source)  # allowed: crops and batches are still compared
    faults: list[str] = []
    oldest = None  # version of the oldest supported onnxruntime; None for other engines
    if engine == "onnxruntime":
        oldest = oldest_runtime().version
        faults = device_faults(load_graph(path))
    device = None
    if not faults:
        contract_in(path)  # raises if the file has no contract: that is an error, not a fault
        try:
            device = Classifier(path, options.threads)
        except InputError as error:
            # An .onnx graph that onnxruntime cannot load is a fault of the file. The library of another engine may be
            # missing or too old, which is an error of this machine.
            if engine != "onnxruntime":
                raise
            faults.append(str(error))
    if device is None:  # the file cannot run on a device
        return VerifyReport(path, source, engine, tuple(faults), oldest, check=None, is_itself=is_itself)
    reference = open_classifier(source, options.threads)
    if reference.contract.labels != device.contract.labels:
        raise InputError(
            f"the labels differ, {', '.join(reference.contract.labels)} and {', '.join(device.contract.labels)}: "
            "compare with a source that has the file's labels, such as a float32 export with the same merges (--merge)"
        )
    images = read_images(
        Path(options.data),
        options.split,
        options.limit,
        reference.contract.crop,
        contempt=options.contempt,
        progress=options.progress,
        notify=options.notify,
    )
    parity = measure_parity(reference, device, images, options.progress)
    if parity.unknown_class is not None:
        options.notify(f"accuracy is not compared: the model has no label '{parity.unknown_class}'")
    tolerance = tolerance_for(device.contract.precision, engine)
    faults += parity_faults(parity, tolerance)
    check = ParityCheck(parity, tolerance, device.contract)
    return VerifyReport(path, source, engine, tuple(faults), oldest, check=check, is_itself=is_itself)


def _check_source(source: Path, path: Path) -> None:
    """Raise InputError if the model file `path` cannot be compared with `source`."""
    if is_prompts_file(source):
        raise InputError(
            f"'{source}' holds trained prompts: name a net's checkpoint (export compares prompts with torch)"
        )
    # Level "none": the session only reads the metadata.
    if source.suffix == ONNX_SUFFIX and not has_contract(
        open_session(source, intra_op_threads=1, level="none"), source
    ):
        raise InputError(
            f"'{source}' has no contract, and 'edgekit import' has compared its outputs with those of the new file: "
            f"compare '{path}' with itself (--against {path})"
        )
