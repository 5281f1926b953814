"""Events posted to a web address."""

from __future__ import annotations

import base64
import http.client
import json
import queue
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import IO, Any, Self

from edgekit import __version__
from edgekit.device.detections import FrameResult
from edgekit.device.events import Event
from edgekit.device.frame import Frame
from edgekit.device.sinks.worker import Worker
from edgekit.errors import InputError

_TIMEOUT_S = 5.0
# Pause before each further attempt. Then the event is dropped, so that a receiver is not flooded after an outage.
_RETRY_PAUSES_S = (1.0, 5.0, 15.0)
_MAX_QUEUED_EVENTS = 1000
_CLOSE_TIMEOUT_S = 1.0


class Webhook:
    """Posts each event as JSON, in order, from its own thread, so that the pipeline never waits.

    An event is dropped and counted in `lost` if the receiver rejects it or four attempts fail. The first of several
    losses in a row is reported. Redirects are not followed, because the token is only for the given address.
    """

    def __init__(
        self,
        url: str,
        token: str | None,
        notify: Callable[[str], None],
        read_snapshot: Callable[[str], bytes | None] | None = None,
    ) -> None:
        """Prepare to post to `url`, with `token` as bearer token if there is one.

        `read_snapshot` returns the JPEG image of an event by its name; it is sent with the event, in base64.

        Raises:
            InputError: `url` is not an http or https address, or contains a password; or `token` is not ASCII.
        """
        parts = _split(url)
        if token is not None and not token.isascii():
            raise InputError("the webhook token contains non-ASCII characters: HTTP headers allow ASCII only")
        self._url = url
        self._name = parts.hostname or ""
        self._headers = {"Content-Type": "application/json", "User-Agent": f"edgekit/{__version__}"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._notify = notify
        self._read_snapshot = read_snapshot
        self._queue: queue.Queue[Event | None] = queue.Queue(_MAX_QUEUED_EVENTS)
        self._closing = threading.Event()
        self._opener = urllib.request.build_opener(_NoRedirects)
        self._thread = Worker(self._work, "webhook")
        self._failing = False
        self.sent = 0
        self.lost = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Wait up to one second until the queued events are sent."""
        self._closing.set()
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            return
        self._thread.join(_CLOSE_TIMEOUT_S)

    def post(self, event: Event) -> None:
        """Queue an event; a full queue drops its oldest one."""
        while True:
            try:
                self._queue.put_nowait(event)
            except queue.Full:
                self._drop("the queue is full")
                try:
                    self._queue.get_nowait()
                except queue.Empty:
                    continue
            else:
                return

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Raise the exception of the thread, if there was one. A webhook sends events only, not results of frames."""
        del frame, result
        self._thread.check()

    def _work(self) -> None:
        while (event := self._queue.get()) is not None:
            self._deliver(json.dumps(self._document(event), allow_nan=False).encode())

    def _document(self, event: Event) -> dict[str, Any]:
        document = event.as_document()
        if self._read_snapshot is not None and event.snapshot is not None:
            jpeg = self._read_snapshot(event.snapshot)
            if jpeg is not None:
                document["snapshot_jpeg"] = base64.b64encode(jpeg).decode()
        return document

    def _deliver(self, body: bytes) -> None:
        for pause_s in (*_RETRY_PAUSES_S, None):
            reason, is_temporary = self._send(body)
            if not reason:
                self.sent += 1
                if self._failing:
                    self._failing = False
                    self._notify(f"webhook {self._name} accepts events again ({self.lost} dropped so far)")
                return
            if pause_s is None or not is_temporary or self._closing.wait(pause_s):
                self._drop(reason)
                return

    def _send(self, body: bytes) -> tuple[str, bool]:
        """Return the reason of a failure ("" on success), and whether a retry may succeed."""
        request = urllib.request.Request(self._url, body, self._headers, method="POST")  # noqa: S310 - http(s) only
        try:
            with self._opener.open(request, timeout=_TIMEOUT_S):
                return "", False
        except urllib.error.HTTPError as error:
            error.close()
            return f"HTTP status {error.code}", error.code >= 500 or error.code in (408, 429)
        except (OSError, http.client.HTTPException) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            return str(reason) or type(error).__name__, True

    def _drop(self, reason: str) -> None:
        self.lost += 1
        if not self._failing:
            self._failing = True
            self._notify(f"webhook {self._name} failed, events are dropped: {reason}")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str) -> None:
        del req, fp, code, msg, headers, newurl


def _split(url: str) -> urllib.parse.SplitResult:
    try:
        parts = urllib.parse.urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and url.isprintable() and " " not in url
        # Checked here, because http.client would raise an error only when the first event is sent.
        usable = usable and url.isascii() and bool((parts.hostname or "").encode("idna"))
        _ = parts.port
    except ValueError:
        usable = False
    if not usable:
        raise InputError("the webhook address must look like https://host/path")
    if parts.username is not None or parts.password is not None:
        raise InputError("the webhook address contains a password: use --webhook-token-file")
    return parts
