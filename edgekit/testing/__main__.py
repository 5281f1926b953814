"""Conformance tests of extensions: `python -m edgekit.testing engine NAME --model FILE --against FILE.onnx`.

NAME is a name in the group `edgekit.engines`, FILE a file of that engine, and FILE.onnx the float32 file that it was
made from. The exit code is 0 if every check passes, 1 if one does not, 2 if a file or the engine cannot be used at all.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from edgekit.errors import ERROR_PREFIX, EXIT_FAULT, EXIT_OK, EdgekitError
from edgekit.files import require_file
from edgekit.testing.engine import CHECKS, Subject
from edgekit.text import one_line


def _main() -> int:
    parser = argparse.ArgumentParser(prog="python -m edgekit.testing", description=__doc__)
    parser.add_argument("kind", choices=["engine"])
    parser.add_argument("engine", metavar="NAME", help="registered name of the engine")
    parser.add_argument("--model", type=Path, required=True, help="file of that engine")
    parser.add_argument("--against", type=Path, required=True, help=".onnx file it was made from")
    given = parser.parse_args()
    subject, failed = Subject(given.engine, given.model, given.against), 0
    try:
        for path in (given.model, given.against):
            require_file(path, "model")
        for part in (subject.loaded, subject.reference):
            assert part.contract
    except EdgekitError as error:
        print(f"{ERROR_PREFIX}{one_line(str(error))}", file=sys.stderr)
        return error.exit_code
    for check in CHECKS:
        try:
            check(subject)
            print(f"ok     {check.__name__}")
        except Exception as error:  # the engine is code of another package
            failed += 1
            print(f"FAILED {check.__name__}: {one_line(str(error))}")
    print("the engine does not conform" if failed else "the engine conforms")
    return EXIT_FAULT if failed else EXIT_OK


if __name__ == "__main__":
    sys.exit(_main())
