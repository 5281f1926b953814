"""Records of results in a text file or on standard output: the part that JSON lines and CSV share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.device.sink import STDOUT
from edgekit.device.sinks.context import RunContext
from edgekit.device.sinks.disk_reserve import RECORDS
from edgekit.device.sinks.file_series import FileSeries
from edgekit.device.sinks.text_file import StandardOutput, TextFile, has_header
from edgekit.device.sinks.writer import Target, Writer, WriterRules
from edgekit.errors import InputError

if TYPE_CHECKING:
    from edgekit.device.detections import FrameResult
    from edgekit.device.frame import Frame

# One write per second, or earlier for a full batch, because writes wear out an SD card.
_EVERY_S = 1.0
_EARLY_CHARS = 64 << 10
# Records that wait while the disk fails.
_MOST_CHARS = 1 << 20
_RETRY_S = 5.0
# With `--records changes`, the time between two records without a change.
_CHANGES_EVERY_S = 1.0


class RecordSink(Writer[str]):
    """Writes the records of each frame: lines of text.

    The records of a live source are written about once per second, those of a recording at once.
    """

    def __init__(
        self,
        name: str,
        target: str,
        run: RunContext,
        records: Callable[[FrameResult], tuple[str, int]],
        header: str = "",
    ) -> None:
        """Prepare to write.

        Args:
            name: Name of the account.
            target: A file, or `-` for stdout.
            run: The run.
            records: Returns the lines of a frame and their number.
            header: The first line of each file, or "".

        Raises:
            InputError: `target` is a folder, or named like an image or a model.
        """
        from edgekit.device.frame import presentation_time_s

        if target != STDOUT:
            _check_name(Path(target))
        rules = WriterRules(
            what=f"recording to '{target}'",
            most=_MOST_CHARS,
            slow="disk too slow",
            holds=True,
            every_s=_EVERY_S,
            early=_EARLY_CHARS,
            pauses_s=(_RETRY_S,),
            reserve=run.reserve(Path(target), RECORDS),
        )
        files: Target[str] = StandardOutput()
        if target != STDOUT:
            files = FileSeries(
                Path(target),
                run.rules.rotation,
                lambda path, _: TextFile(path, header),
                continues=lambda path: has_header(path, header),
            )
        threaded = run.source.live and target != STDOUT
        super().__init__(files, rules, run.account(name), run.shutdown, run.notify, threaded=threaded)
        self._records = records
        self._changes = _Changes(presentation_time_s(run.source)) if run.rules.records == "changes" else None

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Append the records of the frame."""
        if self._changes is None or self._changes.has_changed(frame, result):
            text, count = self._records(result)
            self.put(text, count=count, weight=len(text) + 1)


class _Changes:
    """Selects the results of `--records changes`."""

    def __init__(self, time_s: Callable[[Frame], float]) -> None:
        self._time_s = time_s
        self._faces: frozenset[tuple[int | None, str]] | None = None
        self._at_s = float("-inf")

    def has_changed(self, frame: Frame, result: FrameResult) -> bool:
        """Return whether faces or labels have changed, there is a health sample, or a second has passed."""
        faces = frozenset((face.track_id, face.label) for face in result.faces)
        now_s = self._time_s(frame)
        if faces == self._faces and result.health is None and now_s - self._at_s < _CHANGES_EVERY_S:
            return False
        self._faces, self._at_s = faces, now_s
        return True


def _check_name(path: Path) -> None:
    from edgekit.device.imaging import IMAGE_SUFFIXES
    from edgekit.model_store import MODEL_SUFFIXES

    if path.is_dir():
        raise InputError(f"'{path}' is a folder: name a file")
    if path.suffix.lower() in (*IMAGE_SUFFIXES, *MODEL_SUFFIXES):  # usually an input file given by mistake
        raise InputError(f"'{path}' is named like an image or a model and would be overwritten: use another name")
