"""Who may look: where the page listens, and what a viewer from elsewhere has to know."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import socket

from edgekit.errors import InputError

_DEFAULT_HOST = "127.0.0.1"
_DEFAULT_PORT = 8080
_SHORTEST_TOKEN = 16
COOKIE = "edgekit"


class Access:
    """Decides by a token, compared in constant time; without one, only requests that name this machine are let in."""

    def __init__(self, token: str | None) -> None:
        """Take the token viewers must know.

        Raises:
            InputError: It is short enough to be guessed.
        """
        if token is not None and len(token) < _SHORTEST_TOKEN:
            raise InputError(f"the web token is too short to be safe: use at least {_SHORTEST_TOKEN} characters")
        self._token = None if token is None else token.encode()

    @property
    def wants_token(self) -> bool:
        """Whether there is a token to know."""
        return self._token is not None

    @property
    def cookie(self) -> str:
        """What a browser that knew the token is given; it changes with the token and does not reveal it."""
        assert self._token is not None
        return hmac.new(self._token, b"edgekit web session", hashlib.sha256).hexdigest()

    def knows_token(self, offered: str) -> bool:
        """Return whether `offered` is the token."""
        return self._token is not None and hmac.compare_digest(offered.encode(), self._token)

    def admits(self, authorization: str, cookie: str, host: str) -> bool:
        """Return whether a request with these headers ("" where missing) may see the run."""
        if self._token is None:
            # A page on the internet can make its name resolve to 127.0.0.1; the request then carries that name.
            return _is_this_machine(host)
        scheme, _, offered = authorization.partition(" ")
        if scheme.lower() == "bearer" and self.knows_token(offered.strip()):
            return True
        return hmac.compare_digest(cookie.encode(), self.cookie.encode())


def bind(address: str, token: str | None) -> socket.socket:
    """Return a listening socket for HOST:PORT, HOST or PORT; port 0 takes any that is free.

    Raises:
        InputError: It is no address, it is taken, or it is open to others and there is no token.
    """
    host, port = _parse(address)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise InputError(f"web address '{address}': there is no host '{host}' here") from error
    family, _, _, _, where = found[0]
    if token is None and not ipaddress.ip_address(str(where[0]).partition("%")[0]).is_loopback:
        raise InputError(
            f"--web {address} shows the camera to other machines: give them a token to know, "
            "with --web-token-file FILE or EDGEKIT_WEB_TOKEN"
        )
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _limit(listener)
        listener.bind(where)
        listener.listen(64)
    except OSError as error:
        listener.close()
        raise InputError(f"web address '{address}' cannot be used: {error.strerror or error}: take another") from error
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the page's address as a browser on this machine wants it."""
    host, port = listener.getsockname()[:2]
    if ipaddress.ip_address(host.partition("%")[0]).is_unspecified:
        host = "localhost"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


# A viewer who takes nothing for so long is gone, whatever the network says.
_DEAD_AFTER_MS = 20_000
# What may be under way to a viewer: more would only be older pictures.
_SEND_BUFFER_BYTES = 128 << 10


def _limit(listener: socket.socket) -> None:
    """Set what every connection inherits."""
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _DEAD_AFTER_MS)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _DEAD_AFTER_MS // 2000)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _DEAD_AFTER_MS // 4000)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)


def _parse(address: str) -> tuple[str, int]:
    if re.fullmatch(r"[0-9]{1,5}", address):
        host, port = _DEFAULT_HOST, int(address)
    else:
        match = re.fullmatch(r"(\[[0-9A-Fa-f:.%\w]+\]|[^:\[\]\s/]+)(?::([0-9]{1,5}))?", address)
        if match is None:
            raise InputError(f"web address '{address}' must look like 127.0.0.1:8080, 8080 or [::1]:8080")
        host, port = match.group(1).strip("[]"), int(match.group(2) or _DEFAULT_PORT)
    if port > 65_535:
        raise InputError(f"web address '{address}': ports end at 65535")
    return host, port


def _is_this_machine(host: str) -> bool:
    name = re.sub(r":[0-9]+$", "", host).strip("[]")
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
