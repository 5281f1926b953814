"""Number of threads of each part of a run on this machine."""

from __future__ import annotations

from edgekit.device.engines.session import available_processors, default_intra_op_threads
from edgekit.report.document import ThreadUse


def plan_threads(
    staged: bool | None, threads: int | None, processors: int | None = None, *, detects: bool = True
) -> ThreadUse:
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
        return ThreadUse(staged=staged, detector=threads, classifier=threads, opencv=threads)
    if not staged:
        alone = min(default_intra_op_threads(), processors)
        return ThreadUse(staged=False, detector=alone, classifier=alone, opencv=processors)
    longest = 1 if default_intra_op_threads() == 1 else max(processors - 2, 1)
    detector, classifier = (longest, 1) if detects else (1, longest)
    return ThreadUse(staged=True, detector=detector, classifier=classifier, opencv=1)
