"""Which threads a run gets on this machine."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from edgekit.device.engines.session import available_processors, default_intra_op_threads


@dataclass(frozen=True)
class ThreadPlan:
    """Who works side by side.

    Attributes:
        staged: Capture, finding, classifying and the sinks each have a thread; otherwise they take turns in one.
        detector: Threads within one detection.
        classifier: Threads within one classification.
        opencv: Threads within one call of OpenCV.
        spinning: Idle threads of ONNX Runtime keep a processor busy to answer sooner.
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
        """Return one line for people."""
        stages = "a thread a stage" if self.staged else "one thread for all stages"
        spinning = "spinning" if self.spinning else "not spinning"
        return (
            f"threads: {stages}; detector {self.detector}, classifier {self.classifier}, OpenCV {self.opencv}, "
            f"{spinning}"
        )


def plan_threads(staged: bool | None, threads: int | None, processors: int | None = None) -> ThreadPlan:
    """Return the threads for this machine.

    Stages that run side by side use the processors better than threads within one of them do: on a Pi's Cortex-A53
    four threads make a net 1.4 to 1.9 times as fast, not four. So the detector, the longest stage, gets what the other
    stages leave over, and everything else one thread. Nothing spins: idle threads that do starve the other stages.

    Args:
        staged: Whether stages get threads of their own; None: if there is more than one processor.
        threads: Threads within each net and OpenCV, where the user asked for a number.
        processors: Default: those this process may use.
    """
    processors = processors or available_processors()
    staged = processors > 1 if staged is None else staged
    if threads is not None:
        return ThreadPlan(staged, threads, threads, threads)
    if not staged:
        alone = min(default_intra_op_threads(), processors)
        return ThreadPlan(False, alone, alone, processors)
    detector = 1 if default_intra_op_threads() == 1 else max(processors - 2, 1)
    return ThreadPlan(True, detector, 1, 1)
