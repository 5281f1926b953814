"""Events posted to a web address."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit import __version__
from edgekit.device.sink import Sink, SinkOptions
from edgekit.errors import InputError, StorageError
from edgekit.options import option

if TYPE_CHECKING:
    from edgekit.device.sinks.context import RunContext
    from edgekit.device.sinks.events import Event

# Time limit for the connection to each address of the receiver, for sending, and for the response.
_TIMEOUT_S = 5.0
# Pauses before further attempts. Then the event is dropped, so that a receiver is not flooded after an outage.
RETRY_PAUSES_S = (1.0, 5.0, 15.0)
_MOST_EVENTS = 1000


@dataclass(frozen=True, kw_only=True)
class WebhookOptions(SinkOptions):
    """Options of the webhook."""

    title = "Events"

    webhook: str | None = option("--webhook", "Post events to this address as JSON.", metavar="URL", main=True)
    webhook_token_file: Path | None = option(
        "--webhook-token-file",
        "File with the bearer token. EDGEKIT_WEBHOOK_TOKEN can contain the token instead.",
        metavar="FILE",
        needs="--webhook",
    )

    def open(self, run: RunContext) -> Sink | None:
        """Return the sink, which receives the events of the run.

        Raises:
            InputError: The address is not http or https, or contains a password; or the token cannot be used.
        """
        if self.webhook is None:
            return None
        from edgekit.device.sink import read_secret
        from edgekit.device.sinks.writer import END_OF_RUN, Each, Writer, WriterRules

        token = read_secret(self.webhook_token_file, "EDGEKIT_WEBHOOK_TOKEN", "webhook token", run.notify)
        host = _check(self.webhook, token)
        links = run.links
        read_image = links.snapshots.jpeg if links.snapshots is not None and links.sends_snapshots else None
        rules = WriterRules(
            what=f"sending events to webhook {host}",
            most=_MOST_EVENTS,
            slow=END_OF_RUN,  # without an outage, so many events never wait: only the end of the run loses one
            holds=True,
            pauses_s=RETRY_PAUSES_S,
            attempts=len(RETRY_PAUSES_S) + 1,
        )
        receiver = _Receiver(self.webhook, token, host, read_image)
        webhook: Writer[Event] = Writer(
            Each(receiver.post), rules, run.account("webhook"), run.shutdown, run.notify, threaded=True
        )
        links.outlets.append(webhook.put)
        return webhook


class _Receiver:
    """The address. Redirects are not followed, because the token is only for the given address."""

    def __init__(
        self, url: str, token: str | None, host: str, read_image: Callable[[str], bytes | None] | None
    ) -> None:
        """Post to `url` with the host `host`; `read_image` returns a snapshot by its name, None: no images are sent."""
        self._url = url
        self._host = host
        self._read_image = read_image
        self._headers = {"Content-Type": "application/json", "User-Agent": f"edgekit/{__version__}"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"

    def post(self, event: Event) -> None:
        """Post an event.

        Raises:
            StorageError: The receiver cannot be reached, or cannot accept events at the moment.
            LostError: It rejects the event.
        """
        import http.client

        from edgekit.device.sinks.writer import LostError

        body = json.dumps(self._document(event), allow_nan=False).encode()
        try:
            status = self._post(body)
        except (OSError, http.client.HTTPException) as error:
            raise StorageError(f"webhook {self._host}: {str(error) or type(error).__name__}") from error
        if status >= 300:  # a redirect, too, counts as a rejection
            message = f"webhook {self._host}: HTTP status {status}"
            if status >= 500 or status in (408, 429):  # a fault of the receiver, a time-out or too many requests
                raise StorageError(message)
            raise LostError("rejected", message)

    def _post(self, body: bytes) -> int:
        """Send a request, and return the status of the response."""
        import http.client

        # A connection for each event, because events are rare.
        parts = urllib.parse.urlsplit(self._url)
        connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = connect(self._host, parts.port, timeout=_TIMEOUT_S)
        try:
            path_and_query = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
            connection.request("POST", path_and_query, body, self._headers)
            return connection.getresponse().status
        finally:
            connection.close()

    def _document(self, event: Event) -> dict[str, Any]:
        """Return the JSON document of an event, with its image as base64 if there is one."""
        document = event.as_document()
        if self._read_image is not None and event.snapshot is not None:
            jpeg = self._read_image(event.snapshot)
            if jpeg is not None:  # None: it was not written, as on a full disk
                import base64

                document["snapshot_jpeg"] = base64.b64encode(jpeg).decode()
        return document


def _check(url: str, token: str | None) -> str:
    """Return the host of a webhook's address; raises as `WebhookOptions.open`."""
    # All of it is checked here, because http.client would raise an error only when the first event is sent.
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port, host.encode("idna")  # raise ValueError for an impossible port or host name
    except ValueError:
        host = ""
    is_plain_text = url.isascii() and url.isprintable() and " " not in url
    if not host or not is_plain_text or parts.scheme not in ("http", "https"):
        raise InputError("the webhook address must look like http://host/path or https://host/path")
    if parts.username is not None or parts.password is not None:
        raise InputError("the webhook address contains a password: use --webhook-token-file")
    if token is not None and not token.isascii():
        raise InputError("the webhook token contains non-ASCII characters: HTTP headers allow ASCII only")
    return host
