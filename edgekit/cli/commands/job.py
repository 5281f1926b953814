"""`edgekit job`: runs a benchmark for the edgekit of another machine, which reads its output over SSH."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgekit.cli.command import command as edgekit_command
from edgekit.cli.output import Output


@edgekit_command("job", short_help="Run a benchmark for another machine.")
def command(out: Output) -> None:
    """Run the benchmark that a line of JSON on stdin describes, and print the document that `edgekit.remote` reads.

    The line has `options` (arguments of `edgekit.benchmark`), `names` (the user's name of each file), and `keep`: the
    file in which the report stays if the connection is lost. The benchmark ends when stdin ends.
    """
    del out
    from edgekit.device.benchmark.run import IncompleteError, benchmark
    from edgekit.errors import EdgekitError
    from edgekit.files import write_atomic
    from edgekit.remote.board.loader import report as send
    from edgekit.remote.board.loader import report_progress

    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    answer: dict[str, Any] = {}  # `result`, or `error`, or both if the benchmark failed after some measurements
    report = None
    try:
        report = benchmark(
            **job["options"],
            report_name=lambda name: job["names"].get(name, name),
            progress=lambda state: report_progress(state.cell.name, state.done, state.total),
            notify=lambda text: send(f"warning: {text}"),
        )
    except IncompleteError as error:
        report = error.report
        answer["error"] = str(error)
    except EdgekitError as error:
        answer["error"] = str(error)
    if report is not None:
        answer["result"] = report.as_document()
        with suppress(EdgekitError):  # the result is still printed
            write_atomic(Path(job["keep"]), json.dumps(answer["result"]))
    print(json.dumps(answer), flush=True)


def _end_with_stdin() -> None:
    """Wait for the end of stdin, which is that of the connection, then end this process by SIGTERM."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    # The signal is sent to the main thread: one that another thread receives would not end the main thread's waiting.
    main_thread = threading.main_thread().ident
    assert main_thread is not None
    signal.pthread_kill(main_thread, signal.SIGTERM)
