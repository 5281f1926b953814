"""Number of threads of each part of a run on this machine."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from edgekit.device.engines.session import available_processors, default_intra_op_threads


@dataclass(frozen=True)
class ThreadPlan:
    """Number of threads of each part.

    Attributes:
        staged: Capture, tracking, classification and the sinks each have a thread; otherwise all run in one.
        detector: Threads within one detection.
        classifier: Threads within one classification.
        opencv: Threads within one OpenCV call.
        spinning: Idle threads of ONNX Runtime wait actively, which keeps a processor busy.
    """

    staged: bool
    detector: int
    classifier: int
    opencv: int
    spinning: bool = False

    def as_document(self) -> dict[str, Any]:
        """Return the fields by name, ready for JSON."""
        return asdict(self)

    def describe(self) -> str:
        """Return one line of text."""
        stages = "one thread per stage" if self.staged else "one thread for all stages"
        spinning = "spinning" if self.spinning else "not spinning"
        return (
            f"threads: {stages}; detector {self.detector}, classifier {self.classifier}, OpenCV {self.opencv}, "
            f"{spinning}"
        )


def plan_threads(
    staged: bool | None, threads: int | None, processors: int | None = None, *, detects: bool = True
) -> ThreadPlan:
    """Return the threads for this machine.

    Parallel stages use the processors better than threads within one stage: on a Pi's Cortex-A53 four threads make a
    net 1.4 to 1.9 times as fast, not four times. So the detector, the longest stage, gets the processors that the other
    stages do not need, and everything else gets one thread. Threads do not spin, because spinning takes processors from
    the other stages. Without a detector, the classifier is the longest stage.

    Args:
        staged: Whether each stage gets a thread; None: if there is more than one processor.
        threads: Threads within each net and OpenCV; None: chosen here.
        processors: Number of processors; default: those that this process may use.
        detects: Whether there is a detector.
    """
    processors = processors or available_processors()
    staged = processors > 1 if staged is None else staged
    if threads is not None:
        return ThreadPlan(staged, threads, threads, threads)
    if not staged:
        alone = min(default_intra_op_threads(), processors)
        return ThreadPlan(False, alone, alone, processors)
    longest = 1 if default_intra_op_threads() == 1 else max(processors - 2, 1)
    return ThreadPlan(True, longest, 1, 1) if detects else ThreadPlan(True, 1, longest, 1)
