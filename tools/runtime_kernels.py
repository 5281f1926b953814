"""Write the list of operators for which an onnxruntime has CPU kernels, for `edgekit verify`.

    pip install --no-deps --target old onnxruntime==1.20.1
    PYTHONPATH=old python tools/runtime_kernels.py export/verification/oldest_runtime.json

Run this script with the oldest onnxruntime that setup.cfg allows.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as native

_OPEN_ENDED = 2**31 - 1
# Given by the ONNX release that onnxruntime is built with; see docs/Versioning.md in onnxruntime's repository.
_IR_VERSIONS = {"1.20": 10}


def main() -> None:
    """Write the list to the file named on the command line."""
    kernels: dict[str, dict[str, set[tuple[int, int | None]]]] = defaultdict(lambda: defaultdict(set))
    for kernel in native.get_all_opkernel_def():
        if kernel.provider == "CPUExecutionProvider":
            first, last = kernel.version_range
            kernels[kernel.domain][kernel.op_name].add((first, None if last >= _OPEN_ENDED else last))
    opsets: dict[str, int] = defaultdict(int)
    for schema in native.get_all_operator_schema():
        opsets[schema.domain] = max(opsets[schema.domain], schema.since_version)
    document = {
        "onnxruntime": onnxruntime.__version__,
        "ir_version": _IR_VERSIONS[onnxruntime.__version__.rpartition(".")[0]],
        "opsets": {domain: opsets[domain] for domain in kernels},
        "kernels": {
            domain: {name: sorted(ranges, key=lambda pair: pair[0]) for name, ranges in sorted(names.items())}
            for domain, names in sorted(kernels.items())
        },
    }
    Path(sys.argv[1]).write_text(json.dumps(document, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
