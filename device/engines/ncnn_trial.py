"""Program that loads a .ncnn file and runs it once on zeros, with bounded memory; see `ncnn_check`.

    python -m edgekit.device.engines.ncnn_trial FILE MEMORY_BYTES

Logits of a file in half floats are compared with those of the same file in float32, on crops of the shipped portrait.
The exit code is 0 if the file can be run; else stdout has the reason.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import numpy as np

from edgekit.contract import channel_count
from edgekit.device.engines.ncnn_engine import NcnnEngine, load_library
from edgekit.errors import EXIT_FAULT, EXIT_OK, EdgekitError


def main(path: Path, memory_bytes: int) -> int:
    """Run the file and return the exit code."""
    load_library(path)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    used_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit_bytes = used_bytes + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
    try:
        engine = NcnnEngine(path, 1, checked=True)
        spec = engine.contract.input
        images = np.zeros((1, channel_count(spec.channels), *spec.size_hw), np.float32)
        engine.check_weights(images[0])
        engine.infer(images)
        faults = half_float_faults(path, engine) if engine.contract.precision == "float16" else []
    except MemoryError:
        print(f"it needs more than {memory_bytes >> 20} MiB of memory")
        return EXIT_FAULT
    except EdgekitError as error:
        # Remove the beginning and the cure of the message, because `ncnn_check` adds them to the reason.
        print(str(error).removeprefix(f"model '{path}' cannot be run by ncnn: ").removesuffix(": export it again"))
        return EXIT_FAULT
    if faults:
        print(f"half floats change its results on this processor: {'; '.join(faults)}")
    return EXIT_FAULT if faults else EXIT_OK


def half_float_faults(path: Path, engine: NcnnEngine) -> list[str]:
    """Return one line for each way in which half floats change the logits of a file by more than the tolerance."""
    # Imported here, because a file in float32 needs no pictures.
    from edgekit.device.engines.portrait import portrait_crops
    from edgekit.device.engines.tolerance import logit_faults, tolerance_for
    from edgekit.preprocess import to_input

    spec = engine.contract.input
    crops = to_input(portrait_crops(engine.contract), spec)
    logits = engine.infer(crops)
    reference = NcnnEngine(path, 1, checked=True, precision="float32").infer(crops)
    return logit_faults(reference, logits, tolerance_for("float16", "ncnn"))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
