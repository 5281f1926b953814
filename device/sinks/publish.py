"""`--publish`: the frames with drawn boxes and labels, sent as H.264 to an RTSP server, from which others play them."""

from __future__ import annotations

import socket
import urllib.parse
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from edgekit.device.sink import Sink, SinkOptions
from edgekit.device.sinks.writer import Target, Writer, WriterRules
from edgekit.errors import InputError, StorageError
from edgekit.options import option

if TYPE_CHECKING:
    from edgekit.device.annotate import Shot
    from edgekit.device.detections import FrameResult
    from edgekit.device.frame import Frame
    from edgekit.device.sinks.context import RunContext
    from edgekit.preprocess import ImageU8

_PORT = 554
# For the connection, and for each request and each packet.
_TIMEOUT_S = 5.0
_RECONNECT_PAUSES_S = (1.0, 2.0, 5.0, 10.0, 30.0)
# Few frames wait, because they are large.
_MOST_FRAMES = 3
_ASSUMED_FPS = 15.0


@dataclass(frozen=True, kw_only=True)
class PublishOptions(SinkOptions):
    """Options of the stream to an RTSP server."""

    title = "Results"

    publish: str | None = option(
        "--publish",
        "Send the video of a camera or stream, with boxes and labels, to an RTSP server, such as MediaMTX or go2rtc: "
        "rtsp://HOST[:PORT]/NAME.",
        metavar="URL",
        main=True,
    )

    def open(self, run: RunContext) -> Sink | None:
        """Return the sink.

        Raises:
            InputError: The address is not rtsp, PyAV is missing, or the source is neither a camera nor a stream.
        """
        if self.publish is None:
            return None
        from edgekit.device.sinks.mp4 import require_pyav

        address = _address(self.publish)
        require_pyav()
        if not run.source.live:
            raise InputError("--publish needs a camera or a stream: for a file, add --realtime")
        return PublishSink(self.publish, address, run)


class PublishSink(Writer["Shot"]):
    """Sends each frame. While the server is away, frames are dropped."""

    def __init__(self, url: str, address: tuple[str, int], run: RunContext) -> None:
        """Prepare to send to `url`, whose host and port are `address`."""
        from edgekit.device.frame import presentation_time_s

        self._hidden = run.blur()
        server = _Server(url, address, run.source.fps or _ASSUMED_FPS, presentation_time_s(run.source))
        rules = WriterRules(
            what=f"publishing to {address[0]}",
            most=_MOST_FRAMES,
            slow="encoder or network too slow",
            pauses_s=_RECONNECT_PAUSES_S,
        )
        # `threaded`: the source is live, see `PublishOptions.open`.
        super().__init__(server, rules, run.account("publish"), run.shutdown, run.notify, threaded=True)

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Send the frame."""
        from edgekit.device.annotate import Shot

        # Not in the thread, because the faces of dropped frames count too.
        self.put(Shot(frame, result, self._hidden(frame, result)))


class _Server(Target["Shot"]):
    """The server, to which a connection is opened for the first frame and again after a failure."""

    def __init__(self, url: str, address: tuple[str, int], fps: float, time_s: Callable[[Frame], float]) -> None:
        self._url = url
        self._address = address
        self._fps = fps
        self._time_s = time_s
        self._video: _Video | None = None

    def write(self, items: Sequence[Shot]) -> int:
        """Send the only frame: without `every_s` a writer passes one at a time, and after an error it calls `close`."""
        from edgekit.device.sinks.mp4 import pyav
        from edgekit.device.sinks.saved_frames import even_size

        (shot,) = items
        try:
            if self._video is None:
                self._check_answer()
                self._video = _Video(self._url, even_size(shot.frame.size_wh), self._fps)
            self._video.send(shot.drawn(), self._time_s(shot.frame))
        except (OSError, pyav().FFmpegError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            # `loss_reason` reads the cause, which must be an OSError. PyAV's error is not always one, and its text
            # contains the password.
            raise StorageError(f"RTSP server {self._address[0]}: {reason}") from ConnectionError(0, reason)
        return 1

    def close(self) -> int:
        """Disconnect."""
        video, self._video = self._video, None
        if video is not None:
            video.close()
        return 0

    def _check_answer(self) -> None:
        """Check that the server answers. PyAV would wait for it with Python's lock, so that the whole run would wait.

        Raises:
            OSError: It does not answer.
        """
        # Without the login: any answer is enough, also a rejection.
        request = f"OPTIONS {_without_login(self._url)} RTSP/1.0\r\nCSeq: 1\r\n\r\n"
        with socket.create_connection(self._address, _TIMEOUT_S) as connection:
            connection.sendall(request.encode())
            if not connection.recv(1):  # the first byte of its answer
                raise ConnectionResetError("it closed the connection")


class _Video:
    """A connection to the server, and the encoder of its video."""

    def __init__(self, url: str, size_wh: tuple[int, int], fps: float) -> None:
        """Open the encoder; the first packet connects."""
        from edgekit.device.sinks.mp4 import H264Encoder, pyav

        self._av = av = pyav()
        self._size_wh = size_wh
        self._encoder = H264Encoder(size_wh, fps)
        options = {"rtsp_transport": "tcp", "timeout": str(round(_TIMEOUT_S * 1e6))}  # microseconds
        self._container = av.open(url, "w", format="rtsp", container_options=options)
        # PyAV describes a stream by an encoder. It stays unused, because `send` adds encoded packets.
        self._stream = stream = self._container.add_stream("h264", rate=round(fps) or 1)
        stream.width, stream.height = size_wh
        stream.pix_fmt = "yuv420p"

    def send(self, image_bgr: ImageU8, time_s: float) -> None:
        """Encode and send a frame; raises FFmpegError or StorageError."""
        from edgekit.device.sinks.saved_frames import fitted

        for packet in self._encoder.encode(fitted(image_bgr, self._size_wh), time_s):
            # PyAV's own packet, because the encoder is not that of this container.
            coded = self._av.Packet(packet.data)
            coded.pts = coded.dts = packet.time_us
            coded.time_base = Fraction(1, 1_000_000)  # microseconds, the unit of `time_us`
            coded.is_keyframe = packet.is_key
            coded.stream = self._stream
            self._container.mux(coded)

    def close(self) -> None:
        """End the video."""
        with suppress(OSError, self._av.FFmpegError):
            self._container.close()


def _address(url: str) -> tuple[str, int]:
    """Return host and port of an RTSP address; raises InputError for another text."""
    # The message does not contain the text, which may contain a password.
    wrong = InputError("the address of --publish must look like rtsp://host:8554/door")
    if not url.startswith("rtsp://") or not url.isprintable() or " " in url:
        raise wrong
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = parts.hostname or "", parts.port or _PORT
        host.encode("idna")  # as the resolver does; raises ValueError, as `port` does
    except ValueError:
        raise wrong from None
    if not host:
        raise wrong
    return host, port


def _without_login(url: str) -> str:
    """Return the address without user and password, which a request of OPTIONS does not need."""
    parts = urllib.parse.urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
