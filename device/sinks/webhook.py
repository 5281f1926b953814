"""Events posted to a web address."""

from __future__ import annotations

import base64
import http.client
import io
import json
import queue
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import IO, Any, Self

from edgekit import __version__
from edgekit.device.accounting import Account
from edgekit.device.detections import FrameResult
from edgekit.device.events import Event
from edgekit.device.frame import Frame
from edgekit.device.sink import Sink
from edgekit.device.sinks.worker import Worker
from edgekit.errors import InputError
from edgekit.text import counted

# Time limit for the connection to each address of the receiver, for sending, and for the whole response.
_TIMEOUT_S = 5.0
# Size limit of a response, which has no useful content. A stream of interim responses would use a whole core.
_MAX_RESPONSE_BYTES = 64 << 10
# Pause before each further attempt. Then the event is dropped, so that a receiver is not flooded after an outage.
_RETRY_PAUSES_S = (1.0, 5.0, 15.0)
_MAX_QUEUED_EVENTS = 1000
_CLOSE_TIMEOUT_S = 1.0


class Webhook(Sink):
    """Posts each event as JSON, in order, from its own thread, so that the pipeline never waits.

    An event is dropped and counted if the receiver rejects it or four attempts fail. The first of several losses in a
    row is reported. Redirects are not followed, because the token is only for the given address.

    Attributes:
        accounts: One account, of the events.
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
        self._opener = urllib.request.build_opener(_NoRedirects, _HttpHandler, _HttpsHandler)
        self._thread = Worker(self._work, "webhook")
        self._failing = False
        self._changing = threading.Lock()
        self._account = Account("webhook")
        self.accounts: Sequence[Account] = (self._account,)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Wait up to one second until the queued events are sent; count and report those that are not.

        Raises the exception of the thread, if there was one.
        """
        self._closing.set()
        self._thread.finish(self._queue, _CLOSE_TIMEOUT_S)
        if left := self._account.close("end of the run"):
            self._notify(f"webhook {self._name}: {counted(left, 'event')} not confirmed at the end of the run")
        self._thread.check()

    def post(self, event: Event) -> None:
        """Queue an event; a full queue drops its oldest one."""
        self._account.produce()
        while True:
            try:
                self._queue.put_nowait(event)
            except queue.Full:
                with suppress(queue.Empty):
                    self._queue.get_nowait()
                    self._drop("queue full", "the queue is full")
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
                self._account.write()
                if self._change_failing(False):
                    self._notify(f"webhook {self._name} accepts events again ({self._account.lost} dropped so far)")
                return
            if not is_temporary:
                self._drop("rejected", reason)
                return
            if self._closing.wait(0 if pause_s is None else pause_s):
                return  # counted at the end
        self._drop("receiver failed", reason)

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

    def _drop(self, reason: str, details: str) -> None:
        self._account.drop(reason)
        # The pipeline's thread drops events too, when the queue is full.
        if self._change_failing(True):
            self._notify(f"webhook {self._name} failed, events are dropped: {details}")

    def _change_failing(self, failing: bool) -> bool:
        """Set whether events are dropped; return whether this is a change."""
        with self._changing:
            before, self._failing = self._failing, failing
        return before != failing


class _BoundedReader(io.RawIOBase):
    """The data that a socket receives, up to a size and a time. A timeout of the socket limits each read only."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._end_s = time.monotonic() + _TIMEOUT_S
        self._bytes_left = _MAX_RESPONSE_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            if (left_s := self._end_s - time.monotonic()) <= 0:
                raise TimeoutError
            self._socket.settimeout(left_s)
            count = self._socket.recv_into(buffer)
        except TimeoutError:
            raise TimeoutError(f"no complete response within {_TIMEOUT_S:g} s") from None
        self._bytes_left -= count
        if self._bytes_left < 0:
            raise http.client.HTTPException(f"a response of more than {_MAX_RESPONSE_BYTES >> 10} KiB")
        return count


class _BoundedResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp.close()
        self.fp = io.BufferedReader(_BoundedReader(sock))


class _HttpConnection(http.client.HTTPConnection):
    response_class = _BoundedResponse


class _HttpsConnection(http.client.HTTPSConnection):
    response_class = _BoundedResponse


class _HttpHandler(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_HttpConnection, req)


class _HttpsHandler(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_HttpsConnection, req)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def http_error_302(self, req: Any, fp: IO[bytes], code: int, msg: str, headers: Any) -> None:
        """Let the response be an error. The new address is not read, because it may be malformed."""
        del req, fp, code, msg, headers

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


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
