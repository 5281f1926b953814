"""`--teach`: a tab of the web page on which a user records own things, fits a model and uses it in the run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

from edgekit.device.sink import Sink, SinkOptions
from edgekit.device.stages import Worker
from edgekit.options import option

if TYPE_CHECKING:
    from edgekit.contract import Subject
    from edgekit.device.detections import FrameResult
    from edgekit.device.frame import Frame
    from edgekit.device.sinks.context import RunContext
    from edgekit.device.teach.session import SessionParts, TeachSession
    from edgekit.device.teach.taught_file import TaughtFile

_NAME = "taught.onnx"
_END_TIMEOUT_S = 0.5
# The run's own nets need the other processors of a Pi.
_EMBEDDER_THREADS = 2


def _taught_file(text: str) -> Path:
    from edgekit.device.sinks.context import state_folder

    return Path(text) if text else state_folder() / _NAME


@dataclass(frozen=True, kw_only=True)
class TeachTabOptions(SinkOptions):
    """Options of teaching in the browser."""

    title = "Web page"

    teach: Path | None = option(
        "--teach",
        "Teach your own things on the page of --web, and use the taught model in this run. FILE is the taught model; "
        f"without a value: {_NAME} in the state folder.",
        metavar="[FILE]",
        bare="",
        parse=_taught_file,
        needs="--web",
        excludes=("--blur-faces", "--csv"),
        main=True,
    )
    teach_size_px: int = 160

    def files(self) -> list[Path]:
        """Return the taught model."""
        return [] if self.teach is None else [self.teach]

    def taught_file(self, model: str | Path) -> TaughtFile | None:
        """Return the file of the taught model, for a run with `model`; None without --teach.

        Raises:
            InputError: `model` does not exist, or the taught file does not end in .onnx.
        """
        if self.teach is None:
            return None
        from edgekit.device.engines.engine import device_suffixes
        from edgekit.device.teach.taught_file import TaughtFile
        from edgekit.model_store import resolve_model

        suffixes = device_suffixes(str(model))  # of the files that this machine can run
        return TaughtFile(self.teach, resolve_model(str(model), suffixes))

    def open(self, run: RunContext) -> Sink | None:
        """Return the sink, whose session the web page uses.

        Raises:
            InputError: The package onnx is missing.
        """
        # The run makes `run.taught` from `teach`, see `taught_file`: both are None without --teach.
        if self.teach is None or run.taught is None:
            return None
        from edgekit.device.teach.session import TeachSession

        session = TeachSession(self._parts(run, run.taught))
        run.links.teaching = session
        run.shutdown.add(session.end)
        return TeachSink(session)

    def _parts(self, run: RunContext, file: TaughtFile) -> SessionParts:
        """Return what a session needs of the run."""
        from edgekit.device.region import taught_region
        from edgekit.device.sinks.disk_reserve import PICTURES
        from edgekit.device.teach import write  # noqa: F401 - needs onnx, without which nothing should be recorded
        from edgekit.device.teach.embed import Embedder
        from edgekit.device.teach.recordings import Recordings
        from edgekit.device.teach.session import SessionParts

        # Teaching continues with the subject of a taught model, which alone has a distance. With `is_for_any`, the
        # command is `edgekit teach`, whose first model has the subject to teach. Other models, such as one of
        # expressions, have a subject of their own, and teaching begins with whole images.
        has_subject_to_teach = file.is_for_any or run.contract.distance is not None
        subject: Subject = run.contract.subject if has_subject_to_teach else "image"
        return SessionParts(
            file=file,
            recordings=Recordings(file.pictures, run.rules.pictures_max_bytes),
            subject=subject,
            make_embedder=partial(Embedder, self.teach_size_px, subject, _EMBEDDER_THREADS),
            use_model=partial(_use_model, run),
            roi=run.roi,
            region=taught_region(run.contract) if file.is_used else None,
            shortage=run.reserve(file.pictures, PICTURES).shortage,  # a method: the session calls it before it writes
        )


def _use_model(run: RunContext, path: Path) -> None:
    """Classify with a taught model from the next frame on."""
    assert run.use_model is not None
    run.links.contract = run.use_model(path)


class TeachSink(Sink):
    """Passes the frames to a session, and runs its two threads."""

    def __init__(self, session: TeachSession) -> None:
        self._session = session
        self._threads = (Worker(session.watch, "teach"), Worker(session.fit_changes, "fit"))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._session.end()
        for thread in self._threads:
            thread.join(_END_TIMEOUT_S)

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Offer the frame to the session."""
        for thread in self._threads:
            thread.check()
        self._session.offer(frame, result)
