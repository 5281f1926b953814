"""`edgekit job`: runs a benchmark for the edgekit of another machine, which reads its output over SSH."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgekit.cli.command import command as edgekit_command
from edgekit.cli.output import Output


@edgekit_command("job", short_help="Run a benchmark for another machine.")
def command(out: Output) -> None:
    """Run the benchmark that a line of JSON on stdin describes, and print the document that `edgekit.remote.job` reads.

    The line has `options` (arguments of `edgekit.benchmark`), `names` (the user's name of each file), and `keep`: the
    file in which the report stays if the connection is lost, or null.
    """
    del out
    from edgekit.device.benchmark.run import IncompleteError, benchmark
    from edgekit.errors import EdgekitError
    from edgekit.files import write_atomic
    from edgekit.remote.messages import report as send
    from edgekit.remote.messages import report_progress

    job = json.loads(sys.stdin.readline())
    answer: dict[str, Any] = {}
    report = None
    try:
        report = benchmark(
            **job["options"],
            report_name=lambda name: job["names"].get(name, name),
            progress=lambda state: report_progress(state.cell.name, state.done, state.total),
            notify=lambda text: send(f"warning: {text}"),
        )
    except IncompleteError as error:
        report, answer["error"] = error.report, str(error)
    except EdgekitError as error:
        answer["error"] = str(error)
    if report is not None:
        answer["result"] = report.as_document()
        if job["keep"]:
            with suppress(EdgekitError):  # the result is still printed
                write_atomic(Path(job["keep"]), json.dumps(answer["result"]))
    print(json.dumps(answer), flush=True)
