"""Conformance tests of inference engines. Copy this file into the tests of a package that registers an engine:

    from engine_conformance import CHECKS, Subject

    @pytest.mark.parametrize("check", CHECKS)
    def test_conformance(check):
        check(Subject("tflite", Path("mine.tflite"), Path("mine.onnx")))

A check raises AssertionError if the engine does not conform.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from edgekit.device import registry
from edgekit.device.engines.classifier import portrait_crops
from edgekit.device.engines.engine import InferenceEngine
from edgekit.device.engines.session import OnnxRuntimeEngine
from edgekit.errors import InputError
from edgekit.preprocess import FloatArray, ImageU8, to_input
from edgekit.tolerance import logit_faults, tolerance_for


@dataclass(frozen=True)
class Subject:
    """What the checks are applied to.

    `engine` is a registered name, such as "tflite". `model` is a file of that engine, `against` the float32 .onnx file
    that it was made from.
    """

    engine: str
    model: Path
    against: Path

    def open(self, intra_op_threads: int = 1, path: Path | None = None) -> InferenceEngine:
        """Return the model, or another file, loaded by the engine."""
        loaded: InferenceEngine = registry.find("engine", self.engine)(path or self.model, intra_op_threads)
        return loaded

    @cached_property
    def loaded(self) -> InferenceEngine:
        """The model, loaded once."""
        return self.open()

    @cached_property
    def reference(self) -> OnnxRuntimeEngine:
        """The source of the model on ONNX Runtime."""
        return OnnxRuntimeEngine(self.against, 1)

    @cached_property
    def images(self) -> FloatArray | ImageU8:
        """Inputs of the model: 54 crops of a face."""
        contract = self.loaded.contract
        return to_input(portrait_crops(contract), contract.input)

    def require_equal(self, expected: FloatArray, logits: FloatArray, what: str) -> None:
        """Raise AssertionError unless logits are `expected` within the tolerance of `edgekit verify`."""
        found, wanted = (logits.dtype, logits.shape), (np.dtype(np.float32), expected.shape)
        _require(found == wanted, f"infer returns {found}: expected {wanted}")
        engine = "onnxruntime" if self.engine == "onnx" else self.engine
        faults = logit_faults(expected, logits, tolerance_for(self.loaded.contract.precision, engine))
        _require(not faults, f"logits are not {what}: {'; '.join(faults)}")


def check_contract(subject: Subject) -> None:
    """The file's contract is that of its source, apart from names, element type and precision."""
    own, source = subject.loaded.contract, subject.reference.contract
    for field in ("labels", "subject", "crop", "temperature", "uncertain_below"):
        values = getattr(own, field), getattr(source, field)
        _require(values[0] == values[1], f"the contract's {field} is {values[0]}, the source's {values[1]}")
    _require(own.input.size_hw == source.input.size_hw, f"the contract's input size is {own.input.size_hw}")


def check_agreement(subject: Subject) -> None:
    """Logits agree with the source file's on ONNX Runtime."""
    contract = subject.reference.contract
    expected = subject.reference.infer(to_input(portrait_crops(contract), contract.input))
    subject.require_equal(expected, subject.loaded.infer(subject.images), "the source's")


def check_batches(subject: Subject) -> None:
    """Batches of changing sizes have one row per image, each as for that image alone."""
    alone = np.concatenate([subject.loaded.infer(image[np.newaxis]) for image in subject.images[:16]])
    for size in (1, 2, 5, 16, 1):
        logits = subject.loaded.infer(subject.images[:size])
        subject.require_equal(alone[:size], logits, f"those of single images in a batch of {size}")


def check_arrays(subject: Subject) -> None:
    """`infer` takes read-only input, and a later inference does not change the arrays that it has returned."""
    images = subject.images[:2].copy()
    images.flags.writeable = False
    logits = subject.loaded.infer(images)
    before = logits.copy()
    subject.loaded.infer(subject.images[2:4])
    _require(np.array_equal(logits, before), "a later inference changes the array that infer returned")


def check_threads(subject: Subject) -> None:
    """Every number of threads within an inference gives the same logits."""
    expected = subject.loaded.infer(subject.images)
    for count in (1, 2, 4):
        logits = subject.open(count).infer(subject.images)
        subject.require_equal(expected, logits, f"those with 1 thread, with {count} threads")


def check_callers(subject: Subject) -> None:
    """Several threads may call infer at the same time."""
    batches = [subject.images[index : index + 2] for index in range(8)]
    expected = [subject.loaded.infer(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(subject.loaded.infer, batches * 8))
    for index, logits in enumerate(found):
        subject.require_equal(expected[index % 8], logits, "those of the same images in one thread")


def check_damaged_files(subject: Subject) -> None:
    """A damaged, empty or missing file is an InputError of one line that names the file."""
    content = subject.model.read_bytes()
    with tempfile.TemporaryDirectory(prefix="edgekit-testing-") as folder:
        for name, damaged in {"empty": b"", "half": content[: len(content) // 2], "text": b"no model\n"}.items():
            (Path(folder) / f"{name}{subject.model.suffix}").write_bytes(damaged)
        for name in ("empty", "half", "text", "missing"):
            path = Path(folder) / f"{name}{subject.model.suffix}"
            try:
                subject.open(path=path)
            except Exception as error:  # which exception it is, is what is tested
                text = str(error)
                is_right = isinstance(error, InputError) and path.name in text and "\n" not in text
                _require(is_right, f"{error!r} is not an InputError of one line with its file")
            else:
                raise AssertionError(f"the file '{name}' is loaded without an error")


CHECKS: tuple[Callable[[Subject], None], ...] = (
    check_contract,
    check_agreement,
    check_batches,
    check_arrays,
    check_threads,
    check_callers,
    check_damaged_files,
)


def _require(condition: bool, text: str) -> None:
    if not condition:
        raise AssertionError(text)
