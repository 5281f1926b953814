"""Texts that all output formats of a report share: titles, units, board states, warnings, and the order of cells."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import PurePath

import msgspec

from edgekit.boards import throttle_text
from edgekit.report.document import (
    ANY_KINDS,
    EXPLANATIONS,
    BenchmarkReport,
    BoardResult,
    BoardState,
    CellResult,
    ThreadUse,
)
from edgekit.text import TextTable, counted

KIND_NOTE = (
    "run: the loop of edgekit run, the frame rate that you get; frame: one frame through detection and then "
    "classification; net: one inference; threads: those of each net"
)
INTERVAL_NOTE = (
    "±: half of the median's 95 % interval, from the spread between processes; -: fewer than three processes"
)
COLUMNS = (
    "kind", "engine", "threads", "p50 ms", "±", "p90 ms", "p99 ms", "images/s", "MiB", "quality flags",
)  # fmt: skip
TEXT_COLUMNS = ("kind", "engine", "quality flags")


_EMULATED = "EMULATED: measured on an emulator. Neither these times nor their ratios are valid for a real board."
_VIRTUAL = "VIRTUAL MACHINE: other guests share this machine. Times on bare hardware differ."


def board_title(result: BoardResult) -> str:
    """Return the title of a board: its label, model and processor."""
    board = result.board
    parts = [result.label] if result.label else []
    parts.append(board.model or "unknown board")
    if board.cpu and board.cpu != board.model:  # on a PC they are equal
        parts.append(board.cpu)
    parts.append(f"{board.processors or '?'} processors, {board.architecture}")
    return ", ".join(parts)


def frame_rates(report: BenchmarkReport, *, here: bool = False) -> list[str]:
    """Return the median frame rate of `edgekit run` with its 95 % interval, one line per board and model.

    An emulated board has none: its rate is valid for no machine. With `here`, a board is called "this machine".
    """
    lines = []
    for result in with_short_names(report).boards:
        place = "this machine" if here else result.label or result.board.model or "unknown board"
        for model in result.models:
            cell = _fastest([each for each in cells_of(result, model.name) if each.kind == "run"])
            if cell is None or result.board.virtualization == "emulator":
                continue
            interval = "interval unknown: fewer than three processes"
            if cell.median_interval_ms:
                shortest_ms, longest_ms = cell.median_interval_ms
                interval = f"{_rate(longest_ms)} to {_rate(shortest_ms)}"  # the longest time is the lowest rate
            notes = "; ".join((interval, *cell.quality_flags))
            with_model = f" with {model.name}" if len(result.models) > 1 else ""
            lines.append(f"edgekit run on {place}{with_model}: about {_rate(cell.latency.p50_ms)} frames/s ({notes})")
    return lines


def _rate(frame_ms: float) -> str:
    """Return the frames per second for a time per frame."""
    per_s = 1e3 / frame_ms
    return f"{per_s:.0f}" if per_s >= 10 else f"{per_s:.1f}"


def virtualization_warning(result: BoardResult) -> str | None:
    """Return the warning at the top of a report that was not measured on bare hardware."""
    return {"emulator": _EMULATED, "virtual machine": _VIRTUAL}.get(result.board.virtualization or "")


def system_line(result: BoardResult) -> str:
    """Return the operating system and the versions of the libraries that determine latency."""
    parts = [result.board.os_release or "unknown system", f"kernel {result.board.kernel or 'unknown'}"]
    parts += [f"{name} {version}" for name, version in result.versions.items()]
    return ", ".join(parts)


def state_text(state: BoardState) -> str:
    """Return the state of a board at one moment, in words."""
    parts = ["temperature unknown" if state.temperature_c is None else f"{state.temperature_c:.1f} °C"]
    parts.append("clock unknown" if state.clock_mhz is None else f"{state.clock_mhz:.0f} MHz")
    parts.append(f"governor {state.governor or 'unknown'}")
    flags = state.throttling
    parts.append("throttling unknown" if flags is None else throttle_text(flags.now, flags.since_boot))
    return ", ".join(parts)


def created(report: BenchmarkReport) -> str:
    """Return the line with the date of a report. The boards of a merged report have dates of their own."""
    is_merged = any(board.measured_utc for board in report.boards)
    return f"{'Report of' if is_merged else 'Measured'} {report.created_utc}"


def facts(result: BoardResult) -> list[str]:
    """Return the lines about how a board was measured: kinds, states, versions, frames, notes, method."""
    settings = result.settings
    lines = [KIND_NOTE, INTERVAL_NOTE]
    lines += [f"measured: {result.measured_utc}"] if result.measured_utc else []
    lines += [f"before: {state_text(result.before)}", f"after: {state_text(result.after)}"]
    lines.append(f"with: {system_line(result)}")
    if cache := result.frame_cache:
        width, height = cache.first_frame_wh
        lines.append(f"frames: {cache.frames} of '{cache.source}', {width}x{height}, from memory")
    detectors = dict.fromkeys(cell.detector for cell in result.cells if cell.detector)
    if detectors:
        size = "" if settings.detector_size_px is None else f", input {settings.detector_size_px} px"
        lines.append(f"detector: {', '.join(detectors)}{size}")
    uses = dict.fromkeys(thread_text(cell.threads) for cell in result.cells if cell.threads)
    lines += [f"run: {use}" for use in uses]
    if result.notes:
        lines.append("notes: " + ", ".join(f"{key}: {value}" for key, value in result.notes.items()))
    lines.append(
        f"method: at least {settings.seconds:g} s and {settings.min_iterations} iterations per cell, in "
        f"{counted(settings.processes, 'process', 'processes')}"
    )
    return lines


def warnings(result: BoardResult) -> list[str]:
    """Return the reasons to doubt a board's results, except that of `virtualization_warning`, which is shown first."""
    found = []
    for flag, meaning in EXPLANATIONS.items():
        flagged = [cell for cell in result.cells if flag in cell.quality_flags]
        if flagged:
            found.append(f"{flag.upper()} ({len(flagged)} of {len(result.cells)} cells): {meaning}")
    repeated = sum(len(cell.repeated) for cell in result.cells)
    if repeated:
        found.append(f"{repeated} measurements were discarded and repeated after a pause")
    if not result.complete:
        found.append("INTERRUPTED: not all planned measurements were made")
    return found


def not_measured(report: BenchmarkReport) -> str | None:
    """Return the labels of the boards without results as one line; None if all boards have results.

    The reasons are left out, because they may contain addresses.
    """
    # In a merged report, a host with an error may have results of another measurement.
    measured = {board.label for board in report.boards}
    failed = [host.label for host in report.hosts if host.error is not None and host.label not in measured]
    # Each label once, because merged reports may have a board several times.
    labels = list(dict.fromkeys(failed))
    board_count = len({host.label for host in report.hosts})
    return f"NOT MEASURED ({len(labels)} of {board_count} boards): {', '.join(labels)}" if failed else None


def thread_text(use: ThreadUse) -> str:
    """Return the threads of a run in words."""
    stages = "one thread per stage" if use.staged else "one thread for all stages"
    return f"{stages}; threads: detector {use.detector}, classifier {use.classifier}, OpenCV {use.opencv}"


def with_short_names(report: BenchmarkReport) -> BenchmarkReport:
    """Return a report in which each model is named by its file name, and by as many folders as make it unique."""
    replace = msgspec.structs.replace
    names = {model.name for board in report.boards for model in board.models}
    short_names = {name: _shortest(name, names) for name in names}
    boards = []
    for board in report.boards:
        models = tuple(replace(model, name=short_names[model.name]) for model in board.models)
        cells = tuple(replace(cell, model=short_names[cell.model]) for cell in board.cells)
        boards.append(replace(board, models=models, cells=cells))
    return replace(report, boards=tuple(boards))


def _shortest(name: str, names: Collection[str]) -> str:
    """Return the shortest end of a path in which no other path of `names` ends: the file name, or folders with it."""
    parts = PurePath(name).parts
    others = [PurePath(other).parts for other in names if other != name]
    for count in range(1, len(parts) + 1):
        end = parts[-count:]
        if not any(other[-count:] == end for other in others):
            return str(PurePath(*end))
    return name  # all of it is the end of another name


def cells_of(result: BoardResult, model: str) -> list[CellResult]:
    """Return a model's cells in the order of tables: by kind, engine and threads."""
    cells = [cell for cell in result.cells if cell.model == model]
    return sorted(cells, key=lambda cell: (ANY_KINDS.index(cell.kind), cell.engine, cell.intra_op_threads))


def row(cell: CellResult) -> tuple[str, ...]:
    """Return a cell as a table row: one text for each of `COLUMNS`."""
    return (
        cell.kind,
        cell.engine,
        str(cell.intra_op_threads),
        ms(cell.latency.p50_ms),
        plus_minus(cell),
        ms(cell.latency.p90_ms),
        ms(cell.latency.p99_ms),
        f"{cell.images_per_s:.1f}",
        f"{cell.resident_mib:.0f}",
        ", ".join(cell.quality_flags),
    )


def shown_columns(cells: Sequence[CellResult]) -> list[int]:
    """Return the indices of the `COLUMNS` to show: not the engine if all cells share it, nor flags if none is set."""
    hidden = {"engine"} if len({cell.engine for cell in cells}) == 1 else set()
    hidden |= {"quality flags"} if not any(cell.quality_flags for cell in cells) else set()
    return [index for index, name in enumerate(COLUMNS) if name not in hidden]


def overviews(report: BenchmarkReport) -> list[TextTable]:
    """Return one table per model file that was measured on several boards: p50 of each kind, fps and quality flags.

    The title of a table is the file's name on the first board. In merged reports, one file can have several names, and
    files with different contents can have the same name.
    """
    # By the SHA-256 of a file: the boards that have it, each with the file's name there.
    boards_of: dict[str, list[tuple[BoardResult, str]]] = {}
    for board in report.boards:
        for model in board.models:
            boards_of.setdefault(model.sha256, []).append((board, model.name))
    tables = []
    for named_boards in boards_of.values():
        _, title = named_boards[0]
        with_cells = [(board, cells_of(board, name)) for board, name in named_boards]
        measured = [(board, cells) for board, cells in with_cells if cells]
        # By identity: a board can have a file under two names, and the results of two boards can be equal.
        if len({id(board) for board, _ in measured}) >= 2:
            tables.append(_overview(measured, title))
    return tables


def _overview(measured: Sequence[tuple[BoardResult, Sequence[CellResult]]], title: str) -> TextTable:
    """Return the table of one model file; `measured` has the boards, each with the model's cells."""
    measured_kinds = {cell.kind for _, cells in measured for cell in cells}
    kinds = [kind for kind in ANY_KINDS if kind in measured_kinds]
    rows = []
    columns = ["board", *kinds, "fps", "quality flags"] if "run" in kinds else ["board", *kinds, "quality flags"]
    for board, cells in measured:
        texts = [board.label or board.board.model or "unknown board"]
        fastest = {kind: _fastest([cell for cell in cells if cell.kind == kind]) for kind in kinds}
        texts += ["-" if cell is None else ms(cell.latency.p50_ms) for cell in fastest.values()]
        if "run" in kinds:
            run = fastest["run"]
            texts.append("-" if run is None else _rate(run.latency.p50_ms))
        flags = [flag for flag in EXPLANATIONS if any(flag in cell.quality_flags for cell in cells)]
        rows.append([*texts, ", ".join(flags)])
    return TextTable(columns, rows, ("board", "quality flags"), title)


def overview_note(tables: Sequence[TextTable]) -> str:
    """Return the note below overviews, which explains their columns."""
    note = "p50 in ms per kind, at the fastest number of threads"
    has_fps = any("fps" in table.columns for table in tables)
    return f"{note}; fps: median frames per second of the kind run" if has_fps else note


def _fastest(cells: Sequence[CellResult]) -> CellResult | None:
    return min(cells, key=lambda cell: cell.latency.p50_ms, default=None)


def plus_minus(cell: CellResult) -> str:
    """Return half of the median's 95 % interval in percent, or "-" if there were too few processes."""
    limits = cell.median_interval_ms
    if limits is None:
        return "-"
    # On logarithms the interval is symmetric: its half is the square root of the ratio of the limits.
    percent = 100 * (math.sqrt(limits[1] / limits[0]) - 1)
    return f"{percent:.1f} %" if percent < 10 else f"{percent:.0f} %"


def ms(value: float) -> str:
    """Return milliseconds as text with about three significant digits."""
    if value < 1:
        return f"{value:.3f}"
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"


def report_view(report: BenchmarkReport) -> list[str | TextTable]:
    """Return for each board its title, one table per model, facts and warnings; at the end, overviews of the boards."""
    report = with_short_names(report)
    parts: list[str | TextTable] = []
    for board in report.boards:
        parts.append(board_title(board))
        if warning := virtualization_warning(board):
            parts.append(warning)
        parts += [_table(board, model.name) for model in board.models]
        parts += ["", *facts(board), *warnings(board)]
    tables = overviews(report)
    if tables:
        parts += ["", "All boards", *tables, overview_note(tables)]
    if missing := not_measured(report):
        parts.append(missing)
    return parts


def _table(board: BoardResult, model: str) -> str | TextTable:
    """Return the table of a model's cells on a board, or a line of text if it has none."""
    cells = cells_of(board, model)
    if not cells:
        return f"{model}: not measured"
    title = model
    shown = shown_columns(board.cells)  # indices of `COLUMNS`
    engine_index = COLUMNS.index("engine")
    if engine_index in shown and len({cell.engine for cell in cells}) == 1:
        # The engine is in the title instead of a column, so that quality flags fit into eighty columns.
        shown.remove(engine_index)
        title = f"{model}, {cells[0].engine}"
    rows = []
    for cell in cells:
        texts = row(cell)
        rows.append([texts[index] for index in shown])
    return TextTable([COLUMNS[index] for index in shown], rows, TEXT_COLUMNS, title)
