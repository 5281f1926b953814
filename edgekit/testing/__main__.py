"""Conformance tests of extensions.

    python -m edgekit.testing engine tflite --model mine.tflite --against mine.onnx
    python -m edgekit.testing engine my_package:MyEngine --model float.bin --against mine.onnx \
        --model int8.bin --against mine.onnx --json

ENGINE is a name in the group `edgekit.engines`, or MODULE:CLASS, which need not be registered. Each --model is a file
of that engine, and the --against that follows it the float32 .onnx file that it was made from. Give one model per kind
of file, with float32 and with uint8 pixels. The exit code is 0 if every check passes, 1 if one does not, 2 if a file or
the engine cannot be used at all.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from edgekit.errors import ERROR_PREFIX, EXIT_FAULT, EXIT_INTERRUPTED, EXIT_OK, EdgekitError
from edgekit.files import require_file
from edgekit.testing.engine import Outcome, not_tested, run_checks
from edgekit.testing.subject import Subject, engine_factory
from edgekit.text import counted, one_line


def _main() -> int:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m edgekit.testing", description=__doc__, formatter_class=form)
    kinds = parser.add_subparsers(required=True, metavar="KIND")
    engine = kinds.add_parser("engine", help="tests of an inference engine", formatter_class=form, description=__doc__)
    engine.add_argument("engine", metavar="ENGINE", help="registered name, or MODULE:CLASS")
    engine.add_argument("--model", type=Path, action="append", required=True, help="file of that engine; repeatable")
    engine.add_argument("--against", type=Path, action="append", required=True, help=".onnx file it was made from")
    engine.add_argument("--json", action="store_true", help="one JSON document on stdout, text on stderr")
    given = parser.parse_args()
    if len(given.model) != len(given.against):
        parser.error(f"{len(given.model)} --model and {len(given.against)} --against: give one --against per --model")
    try:
        return _test(given.engine, list(zip(given.model, given.against, strict=True)), given.json)
    except EdgekitError as error:
        print(f"{ERROR_PREFIX}{one_line(str(error))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("edgekit: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _test(engine: str, files: list[tuple[Path, Path]], as_json: bool) -> int:
    stream = sys.stderr if as_json else sys.stdout
    engine_factory(engine)
    for path in (path for pair in files for path in pair):
        require_file(path, "model")
    subjects = [Subject(engine, model, against) for model, against in files]

    def show(outcome: Outcome) -> None:
        print(f"  {'ok' if outcome.passed else 'FAILED':6} {outcome.check:14} {one_line(outcome.text)}", file=stream)

    outcomes = {}
    for subject in subjects:
        print(f"{engine}, {subject.model}", file=stream)
        outcomes[str(subject.model)] = run_checks(subject, show)
    failed = sum(not outcome.passed for found in outcomes.values() for outcome in found)
    missing = not_tested(subjects) if not failed else []
    for line in (*missing, f"{counted(failed, 'check')} failed" if failed else "the engine conforms"):
        print(line, file=stream)
    if as_json:
        models = {model: [vars(outcome) for outcome in found] for model, found in outcomes.items()}
        print(json.dumps({"engine": engine, "passed": not failed, "not_tested": missing, "models": models}, indent=2))
    return EXIT_FAULT if failed else EXIT_OK


if __name__ == "__main__":
    sys.exit(_main())
