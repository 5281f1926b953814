"""Conformance tests of inference engines.

A package that registers an engine runs them on its own files, one `Subject` per kind of file:

    python -m edgekit.testing engine tflite --model mine.tflite --against mine.onnx

or from its own tests, without a plugin of a test framework:

    from edgekit.testing.engine import CHECKS
    from edgekit.testing.subject import Subject

    @pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
    def test_conformance(check):
        check(Subject("tflite", Path("mine.tflite"), Path("mine.onnx")))

A check returns one line on what it found, and raises AssertionError if the engine does not conform.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from edgekit.contract import Contract, channel_count
from edgekit.device.engines.tolerance import (
    Tolerance,
    largest_difference,
    logit_faults,
    relative_difference,
    same_top1,
)
from edgekit.preprocess import FloatArray
from edgekit.testing.processes import check_damaged_files, check_interruption, check_release
from edgekit.testing.subject import Subject

_BATCHES = (1, 2, 5, 16, 1)
_INTRA_OP_THREADS = (1, 2, 4)
_CALLERS = 4
_CALLS_PER_CALLER = 8


@dataclass(frozen=True)
class Outcome:
    """Result of one check: whether the engine passed, and one line on what was found."""

    check: str
    passed: bool
    text: str


def run_checks(subject: Subject, progress: Callable[[Outcome], None] = lambda _: None) -> list[Outcome]:
    """Return the outcome of every check; `progress` receives each as it ends."""
    outcomes = []
    for name, check in CHECKS.items():
        try:
            outcome = Outcome(name, True, check(subject))
        except AssertionError as error:
            outcome = Outcome(name, False, str(error))
        except Exception as error:  # the engine is code of another package
            outcome = Outcome(name, False, f"raises {type(error).__name__}: {error}")
        progress(outcome)
        outcomes.append(outcome)
    return outcomes


def check_contract(subject: Subject) -> str:
    """The file's contract is that of its source, apart from names, element type and precision."""
    own, source = subject.contract, subject.reference.contract
    _require(isinstance(own, Contract), f"`contract` is {type(own).__name__}: expected edgekit.contract.Contract")
    for field in ("labels", "subject", "crop", "temperature", "uncertain_below"):
        values = getattr(own, field), getattr(source, field)
        _require(values[0] == values[1], f"the contract's {field} is {values[0]}, the source's {values[1]}")
    sizes = own.input.size_hw, source.input.size_hw
    _require(sizes[0] == sizes[1], f"the contract's input size is {sizes[0]}, the source's {sizes[1]}")
    return f"{len(own.labels)} labels, {own.input.element_type} pixels, {own.precision} weights"


def check_agreement(subject: Subject) -> str:
    """Logits agree with the source file's on ONNX Runtime within `edgekit verify`'s tolerance."""
    logits = subject.loaded.infer(subject.images)
    _require_shape(logits, len(subject.images), subject)
    _require_equal(subject.expected, logits, subject.tolerance, "the source's")
    return (
        f"{len(logits)} crops: logits differ by up to {largest_difference(subject.expected, logits):.1e} "
        f"({relative_difference(subject.expected, logits):.1e} of their rms), "
        f"top-1 is equal on {same_top1(subject.expected, logits)}"
    )


def check_batches(subject: Subject) -> str:
    """Batches of changing sizes have one row per image, each as for that image alone."""
    alone = np.concatenate([subject.loaded.infer(image[np.newaxis]) for image in subject.images[: max(_BATCHES)]])
    for size in _BATCHES:
        logits = subject.loaded.infer(subject.images[:size])
        _require_shape(logits, size, subject)
        _require_equal(alone[:size], logits, subject.tolerance, f"those of single images in a batch of {size}")
    return f"batches of {', '.join(map(str, _BATCHES))}"


def check_input(subject: Subject) -> str:
    """`infer` accepts read-only input of the contract's type and layout, and does not change it."""
    images = subject.images[:3].copy()
    images.flags.writeable = False
    before = images.tobytes()
    subject.loaded.infer(images)
    _require(images.tobytes() == before, "infer changes its input")
    spec = subject.contract.input
    return f"{spec.element_type} (N, {channel_count(spec.channels)}, {spec.size_hw[0]}, {spec.size_hw[1]})"


def check_output(subject: Subject) -> str:
    """Returned arrays are independent: a later inference does not change them."""
    logits = subject.loaded.infer(subject.images[:2])
    before = logits.copy()
    subject.loaded.infer(subject.images[2:4])
    _require(np.array_equal(logits, before), "a later inference changes the array that infer returned")
    logits[:] = 0
    _require(np.array_equal(subject.loaded.infer(subject.images[:2]), before), "writing to a result changes later ones")
    return "results are independent"


def check_determinism(subject: Subject) -> str:
    """The same input has the same bits again, in the same engine and in a new one."""
    first = subject.loaded.infer(subject.images)
    for engine in (subject.loaded, subject.open()):
        again = engine.infer(subject.images)
        difference = largest_difference(first, again)
        _require(np.array_equal(first, again), f"logits of the same input differ by up to {difference:.1e}")
    return "equal bits"


def check_threads(subject: Subject) -> str:
    """Every number of threads within an inference gives the same logits within the tolerance."""
    expected = subject.loaded.infer(subject.images)
    for count in _INTRA_OP_THREADS:
        logits = subject.open(count).infer(subject.images)
        _require_equal(expected, logits, subject.tolerance, f"those with 1 thread, with {count} threads")
    return f"{', '.join(map(str, _INTRA_OP_THREADS))} threads"


def check_callers(subject: Subject) -> str:
    """Several threads may call infer at the same time."""
    batches = [subject.images[index : index + 2] for index in range(_CALLERS * 2)]
    expected = [subject.loaded.infer(batch) for batch in batches]
    jobs = [*range(len(batches))] * _CALLS_PER_CALLER
    with ThreadPoolExecutor(_CALLERS) as pool:
        found = list(pool.map(lambda index: subject.loaded.infer(batches[index]), jobs))
    wrong = sum(not np.array_equal(logits, expected[index]) for index, logits in zip(jobs, found, strict=True))
    _require(not wrong, f"{wrong} of {len(jobs)} results of {_CALLERS} threads are those of other images")
    return f"{_CALLERS} threads, {len(jobs)} inferences"


# The checks by name, in the order in which they run.
CHECKS: dict[str, Callable[[Subject], str]] = {
    "contract": check_contract,
    "agreement": check_agreement,
    "batches": check_batches,
    "input": check_input,
    "output": check_output,
    "determinism": check_determinism,
    "threads": check_threads,
    "callers": check_callers,
    "damaged files": check_damaged_files,
    "release": check_release,
    "interruption": check_interruption,
}


def not_tested(subjects: Sequence[Subject]) -> list[str]:
    """Return one line for each element type of pixels that none of the models has."""
    types = {subject.contract.input.element_type for subject in subjects}
    return [f"no model takes {name} pixels: not tested" for name in ("float32", "uint8") if name not in types]


def _require_shape(logits: FloatArray, images: int, subject: Subject) -> None:
    expected = (images, len(subject.contract.labels))
    _require(
        isinstance(logits, np.ndarray) and logits.dtype == np.float32 and logits.shape == expected,
        f"infer returns {getattr(logits, 'dtype', type(logits).__name__)} {getattr(logits, 'shape', '')}: "
        f"expected float32 {expected}",
    )


def _require_equal(expected: FloatArray, logits: FloatArray, tolerance: Tolerance, subject: str) -> None:
    faults = logit_faults(expected, logits, tolerance)
    _require(not faults, f"logits are not {subject}: {'; '.join(faults)}")


def _require(condition: bool, text: str) -> None:
    if not condition:
        raise AssertionError(text)
