"""Access control of the web page: listening address, token and cookie, and bodies of requests."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import socket
from typing import Any, TypeVar
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from edgekit.errors import ConflictError, EdgekitError, InputError, StorageError, TemporaryError
from edgekit.text import printable
from edgekit.typed_json import convert, parse_json

T = TypeVar("T")


_STATUS = {InputError: 400, ConflictError: 409, StorageError: 507}
_DEFAULT_HOST = "127.0.0.1"
_DEFAULT_PORT = 8080
_MIN_TOKEN_CHARS = 16

# A viewer that acknowledges nothing for this long is disconnected.
_DEAD_AFTER_MS = 20_000
# Small, because queued images would reach a slow viewer late.
_SEND_BUFFER_BYTES = 128 << 10


class Access:
    """Admits requests with the right token; if no token is set, requests to a local name of this machine."""

    def __init__(self, token: str | None) -> None:
        """Use `token`; None admits this machine only.

        Raises:
            InputError: The token is short enough to be guessed.
        """
        if token is not None and len(token) < _MIN_TOKEN_CHARS:
            raise InputError(f"the web token is too short: use at least {_MIN_TOKEN_CHARS} characters")
        # Bytes, because `hmac.compare_digest` compares only texts of ASCII characters.
        self._token = None if token is None else token.encode()

    @property
    def needs_token(self) -> bool:
        """Whether requests need a token."""
        return self._token is not None

    @property
    def cookie(self) -> str:
        """The cookie of a browser that has sent the token; derived from the token by HMAC."""
        return self._derived(b"edgekit web session")

    @property
    def cookie_name(self) -> str:
        """The name of this cookie; each token has its own, because all ports of a machine share their cookies."""
        return "edgekit" if self._token is None else f"edgekit-{self._derived(b'edgekit web cookie')[:8]}"

    def is_token(self, data: bytes) -> bool:
        """Return whether `data` is the token, compared in constant time."""
        return self._token is not None and hmac.compare_digest(data, self._token)

    def admits(self, authorization: str, cookie: str, host: str) -> bool:
        """Return whether a request with these headers is admitted; "" stands for a missing header.

        The headers are decoded as Latin-1, so that each character is one byte.
        """
        if self._token is None:
            # Prevents DNS rebinding: a foreign name that resolves to 127.0.0.1 appears in the Host header.
            return _is_local_name(host)
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() == "bearer" and self.is_token(token.strip(" \t").encode("latin-1")):
            return True
        # The cookie that the login has set.
        return hmac.compare_digest(cookie.encode(), self.cookie.encode())

    def _derived(self, purpose: bytes) -> str:
        assert self._token is not None
        return hmac.new(self._token, purpose, hashlib.sha256).hexdigest()


def bind(address: str, token: str | None) -> socket.socket:
    """Return a listening socket for HOST:PORT, HOST or PORT; port 0 selects a free port.

    Raises:
        InputError: The address is invalid or not permitted, or reachable from other machines while there is no token.
        TemporaryError: The address is in use, or does not exist on this machine, such as before the network is up.
    """
    family, where = _permitted_address(address, token)
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A restarted run can listen although the kernel still keeps closed connections of the run before.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _set_limits(listener)
        listener.bind(where)
        listener.listen(64)  # connections that wait to be accepted
    except OSError as error:
        listener.close()
        # A port below 1024 needs another user. An address that is in use or not there yet may be free later.
        kind = InputError if isinstance(error, PermissionError) else TemporaryError
        raise kind(
            f"web address '{address}' cannot be used: {error.strerror or error}: use another, such as --web 9000"
        ) from error
    return listener


def _permitted_address(address: str, token: str | None) -> tuple[socket.AddressFamily, Any]:
    """Return family and address for the listening socket.

    Without a token, only an address that other machines cannot reach is permitted. Raises as `bind`.
    """
    host, port = _parse(address)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        # An unknown host may be found later, when the network is there.
        kind = InputError if isinstance(error, UnicodeError) else TemporaryError
        raise kind(f"web address '{address}': unknown host '{host}': use a name or address of this machine") from error
    # The first address of a name with several; `where` is the address as `socket.bind` takes it.
    family, _, _, _, where = found[0]
    ip_address = ipaddress.ip_address(str(where[0]).partition("%")[0])  # an IPv6 address can end in %INTERFACE
    if token is None and not ip_address.is_loopback:
        raise InputError(
            f"--web {address} shows images to other machines: set a token with --web-token-file FILE or "
            "EDGEKIT_WEB_TOKEN"
        )
    return family, where


def url_of(listener: socket.socket) -> str:
    """Return the URL of the page: with the host's name if it listens at all addresses, as for 0.0.0.0."""
    host, port = listener.getsockname()[:2]
    if ipaddress.ip_address(host.partition("%")[0]).is_unspecified:
        host = socket.gethostname()
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def _set_limits(listener: socket.socket) -> None:
    """Set options that every accepted connection inherits."""
    # asyncio does so only for sockets of an explicit protocol; without it, an answer waits 40 ms for the client's ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _DEAD_AFTER_MS)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)


def _parse(address: str) -> tuple[str, int]:
    """Return host and port of PORT, HOST or HOST:PORT, where an IPv6 address is in brackets; raises as `bind`."""
    if re.fullmatch(r"[0-9]{1,5}", address):
        host, port = _DEFAULT_HOST, int(address)
    else:
        match = re.fullmatch(r"(\[[0-9A-Fa-f:.%\w]+\]|[^:\[\]\s/]+)(?::([0-9]{1,5}))?", address)
        if match is None:
            raise InputError(f"web address '{address}' must look like 127.0.0.1:8080, 8080 or [::1]:8080")
        host, port = match.group(1).strip("[]"), int(match.group(2) or _DEFAULT_PORT)
    if port > 65_535:
        raise InputError(f"web address '{address}': the highest port is 65535")
    return host, port


def _is_local_name(host: str) -> bool:
    """Return whether a Host header, with or without a port, names this machine as localhost or a loopback address."""
    name = re.sub(r":[0-9]+$", "", host).strip("[]")
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


async def read_body(request: Request, max_bytes: int) -> bytes | Response:
    """Return the body of a request, or the response to one that is too long or incomplete."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > max_bytes:
                return PlainTextResponse("request too long\n", 413)
    except ClientDisconnect:
        return PlainTextResponse("incomplete request\n", 400)
    return bytes(body)


async def read_change(request: Request, kind: type[T], max_bytes: int) -> T | Response:
    """Return the JSON body of a request that a page of this server sends, or the response that refuses it.

    Raises:
        InputError: The body is not a document of this kind.
    """
    if not is_from_page(request):
        return PlainTextResponse("only the page itself may send this\n", 403)
    body = await read_body(request, max_bytes)
    return body if isinstance(body, Response) else convert(parse_json(body, "the request"), kind, "request field")


def refused(error: EdgekitError, **state: Any) -> Response:
    """Return the response to a change that was refused, with the state of the page."""
    status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)
    # The message may quote a lone surrogate of the request, which cannot be sent.
    return JSONResponse({**state, "error": printable(str(error))}, status)


def is_from_page(request: Request) -> bool:
    """Return whether a request can be from a page of this server: JSON, and from the server's own origin.

    A browser lets no other site send such a request.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    origin = request.headers.get("origin")
    # Browsers send the origin with each request of a page to another site.
    same = origin is None or urlsplit(origin).netloc == request.headers.get("host")
    return same and media_type == "application/json"
