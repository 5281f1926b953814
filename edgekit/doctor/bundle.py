"""Archive for a bug report: findings and the files and outputs they are based on, without personal data."""

from __future__ import annotations

import getpass
import io
import json
import os
import re
import socket
import tarfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgekit.files import atomic_path

_MIN_NAME_LENGTH = 3
# Four numbers after the name of an OpenCV package are its version, not an address.
_IPV4 = re.compile(r"(opencv[\w-]{0,40} (?:\d{1,3}\.){3}\d{1,3})|(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?!\d|\.\d)")
_IPV6_PARTS = re.compile(
    r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}(?:[0-9A-Fa-f]{0,4}|(?:\d{1,3}\.){3}\d{1,3})(?:%\w+)?(?![\w:.])"
)
_PATTERNS = (
    (re.compile(r"(?i)\b(?:[0-9a-f]{2}[:-]){5}[0-9a-f]{2}\b"), "<mac>"),
    (re.compile(r"(?im)^([ \t]*serial(?: number)?\s*[:=]\s*).*$"), r"\1<serial>"),
    (re.compile(r"(?i)\b((?:\w+\.)?serial(?:_?(?:no|number))?=)\S+"), r"\1<serial>"),
    (re.compile(r"(?i)((?:e?ssid|psk|wpa_passphrase)\s*[:=]\s*)(?:\"[^\"\n]*\"|[^\n]*)"), r"\1<wifi>"),
    (re.compile(r"(?i)\b((?:part)?uuid=)\S+"), r"\1<uuid>"),
    (re.compile(r"(?i)\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b"), "<uuid>"),
    (re.compile(r"(/home/|/media/)[^/\s:'\"]+"), r"\1<user>"),
)


def redact(text: str, names: Sequence[str]) -> str:
    """Return `text` with addresses, serial numbers, Wi-Fi names and the given `names` replaced by placeholders."""
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    text = _IPV4.sub(lambda match: match[1] or "<ip>", text)
    text = _IPV6_PARTS.sub(lambda match: "<ip>" if "::" in match[0] or match[0].count(":") == 7 else match[0], text)
    for name in sorted(set(names), key=len, reverse=True):
        text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", "<name>", text, flags=re.IGNORECASE)
    return text


def own_names() -> list[str]:
    """Return the names of this user and this host for `redact`, without "root", "localhost" and very short names."""
    names = [socket.gethostname(), socket.getfqdn(), os.environ.get("SUDO_USER", ""), Path.home().name]
    with suppress(OSError, KeyError):  # a user without an entry in /etc/passwd
        names.append(getpass.getuser())
    names += [name.partition(".")[0] for name in names]
    # "root" and "localhost" identify nobody, and "root" occurs in every mount table.
    return sorted({name for name in names if len(name) >= _MIN_NAME_LENGTH} - {"root", "localhost"})


def capture_text(seen: Mapping[str, str]) -> str:
    """Return one text with all files and tool outputs of `Probe.seen`, in the format of tests/fixtures/boards."""
    parts = ["# captured: by 'edgekit doctor --bundle', redacted\n"]
    for title, body in seen.items():
        if title == "proc/mounts":
            # The other lines can name servers and users. The findings need the disk of the home folder only.
            disks = re.compile(r"(\S+ / |/dev/\S+ /home )")
            body = "".join(line for line in body.splitlines(keepends=True) if disks.match(line))
        text = body.replace("\0", "\\0")
        parts.append(f"==> {title} <==\n{text}{'' if text.endswith(chr(10)) else chr(10)}")
    return "".join(parts)


def write_bundle(target: Path, document: Mapping[str, Any], seen: Mapping[str, str], names: Sequence[str]) -> None:
    """Write a .tar.gz with the redacted findings and the files and outputs they are based on.

    Raises:
        StorageError: `target` cannot be written.
    """
    contents = {
        "findings.json": json.dumps(document, indent=2) + "\n",
        "capture.txt": capture_text(seen),
    }
    with atomic_path(target) as temporary, tarfile.open(temporary, "w:gz") as archive:
        for name, text in contents.items():
            data = redact(text, names).encode()
            # A TarInfo has neither owner nor time by default.
            entry = tarfile.TarInfo(f"edgekit-doctor/{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
