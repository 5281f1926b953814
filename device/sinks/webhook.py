"""Events posted to a web address as they happen."""

from __future__ import annotations

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
# Pauses before each further attempt; then the event is given up: a receiver that was away is not flooded with old news.
_PAUSES_S = (1.0, 5.0, 15.0)
_WAITING_EVENTS = 1000
_LEAVE_S = 1.0


class Webhook:
    """Posts each event as JSON, one after the other, in a thread of its own: the pipeline never waits for it.

    What a receiver refuses or does not take in a few attempts is dropped and counted in `lost`; the first loss of a
    row is told. Redirects are not followed: the token is for the address that was given.
    """

    def __init__(self, url: str, token: str | None, notify: Callable[[str], None]) -> None:
        """Prepare to post to `url`, with `token` as bearer token.

        Raises:
            InputError: It is no http or https address, or has a password in it; or the token is not plain ASCII.
        """
        parts = _split(url)
        if token is not None and not token.isascii():
            raise InputError("the webhook token has characters that no header can have: use ASCII")
        self._url = url
        self._name = parts.hostname or ""
        self._headers = {"Content-Type": "application/json", "User-Agent": f"edgekit/{__version__}"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._notify = notify
        self._waiting: queue.Queue[Event | None] = queue.Queue(_WAITING_EVENTS)
        self._leaving = threading.Event()
        self._opener = urllib.request.build_opener(_NoRedirects)
        self._thread = Worker(self._work, "webhook")
        self._in_trouble = False
        self.sent = 0
        self.lost = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Give what waits a moment to get out."""
        self._leaving.set()
        try:
            self._waiting.put_nowait(None)
        except queue.Full:
            return
        self._thread.join(_LEAVE_S)

    def post(self, event: Event) -> None:
        """Take an event; the oldest waiting one makes room where there are too many."""
        while True:
            try:
                self._waiting.put_nowait(event)
            except queue.Full:
                self._drop("too many events wait")
                try:
                    self._waiting.get_nowait()
                except queue.Empty:
                    continue
            else:
                return

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Do nothing but tell of a defect: a webhook sends events only."""
        del frame, result
        self._thread.check()

    def _work(self) -> None:
        while (event := self._waiting.get()) is not None:
            self._deliver(json.dumps(event.as_document(), allow_nan=False).encode())

    def _deliver(self, body: bytes) -> None:
        for pause_s in (*_PAUSES_S, None):
            reason, may_help = self._send(body)
            if not reason:
                self.sent += 1
                if self._in_trouble:
                    self._in_trouble = False
                    self._notify(f"webhook {self._name} takes events again ({self.lost} lost so far)")
                return
            if pause_s is None or not may_help or self._leaving.wait(pause_s):
                self._drop(reason)
                return

    def _send(self, body: bytes) -> tuple[str, bool]:
        """Return why it did not arrive ("" if it did) and whether trying again may help."""
        request = urllib.request.Request(self._url, body, self._headers, method="POST")  # noqa: S310 - http(s) only
        try:
            with self._opener.open(request, timeout=_TIMEOUT_S):
                return "", False
        except urllib.error.HTTPError as error:
            error.close()
            return f"it answers {error.code}", error.code >= 500 or error.code in (408, 429)
        except (OSError, http.client.HTTPException) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            return str(reason) or type(error).__name__, True

    def _drop(self, reason: str) -> None:
        self.lost += 1
        if not self._in_trouble:
            self._in_trouble = True
            self._notify(f"webhook {self._name} takes no events, they are dropped: {reason}")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str) -> None:
        del req, fp, code, msg, headers, newurl


def _split(url: str) -> urllib.parse.SplitResult:
    try:
        parts = urllib.parse.urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and url.isprintable() and " " not in url
        # What is not fit for the wire would only be found with the first event.
        usable = usable and url.isascii() and bool((parts.hostname or "").encode("idna"))
        _ = parts.port
    except ValueError:
        usable = False
    if not usable:
        raise InputError("the webhook's address must look like https://host/path")
    if parts.username is not None or parts.password is not None:
        raise InputError("the webhook's address has a password in it: use --webhook-token-file")
    return parts
