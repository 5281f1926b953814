"""Properties of a board, read by one shell script: system, Python, memory, disk, clock, and edgekit's files."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

from edgekit.boards import is_systemd_state
from edgekit.errors import HostError
from edgekit.remote.payload import Upload
from edgekit.remote.ssh import Connection, shell
from edgekit.text import one_line

MIN_PYTHON = (3, 11)


@dataclass(frozen=True)
class Python:
    """Python of the board's system: path, version, 32 or 64 bits, and whether it can import picamera2."""

    path: str
    version: tuple[int, int]
    bits: int
    picamera2: bool


@dataclass(frozen=True)
class Probe:
    """Properties of a board.

    `root` is edgekit's folder in the user's cache on the board. `stored`, `environments` and `codes` are the names of
    the files, environments and copies of edgekit in this folder. `has_systemd`: systemd manages the board's services.
    `clock_ahead_s` is the board's clock minus this machine's. `commands` are paths of the `edgekit` commands that are
    installed on the board.
    """

    root: str
    model: str | None
    machine: str
    system_bits: int | None
    system: str | None
    release: str | None
    glibc: tuple[int, int] | None
    memory_mib: int | None
    free_bytes: int | None
    has_systemd: bool
    clock_ahead_s: float
    python: Python | None
    stored: frozenset[str]
    environments: frozenset[str]
    codes: frozenset[str]
    commands: tuple[str, ...]

    def stored_path(self, upload: Upload) -> str:
        """Return the path of an upload on the board, whether it has been sent or not."""
        return f"{self.root}/store/{upload.name}"

    def own_edgekit(self, label: str) -> str:
        """Return the `edgekit` that is installed on the board; `label` is the board's name in the error message.

        Raises:
            HostError: None is installed.
        """
        if not self.commands:
            raise HostError(f"{label}: no 'edgekit' is installed on the board: install it, or leave out --no-install")
        return self.commands[0]  # the one on the PATH, if there is one

    def describe(self) -> str:
        """Return the board, its system, Python, memory and free disk space as one line."""
        python = "no Python" if self.python is None else "Python {}.{}".format(*self.python.version)
        memory = "" if self.memory_mib is None else f", {self.memory_mib} MiB memory"
        free = "" if self.free_bytes is None else f", {self.free_bytes >> 20} MiB disk free"
        return f"{self.model or 'unknown board'}, {self.system or 'unknown system'}, {python}{memory}{free}"


def probe(connection: Connection) -> Probe:
    """Return the properties of the board of an open connection.

    Raises:
        HostError: The script failed.
    """
    now_s = time.time()  # with which the clock that the script prints is compared
    done = connection.run(shell(_PROBE, _PROBE_PYTHON))
    try:
        return parse_probe(done.text, now_s)
    except ValueError as error:
        detail = f": {done.last_error_line}" if done.last_error_line else ""
        raise HostError(f"{connection.host.label}: probing the board failed ({error}){detail}") from error


def parse_probe(text: str, now_s: float) -> Probe:
    """Return the board's properties from the KEY=VALUE lines that the script printed; `now_s` is this machine's clock.

    Raises:
        ValueError: A required property is missing.
    """
    # store, envs, code and command have one line per file, folder or path; the other keys have one line.
    listed: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, _, value = line.partition("=")
        listed.setdefault(key, []).append(value)
    values = {key: found[0] for key, found in listed.items()}
    if not values.get("root", "").startswith("/"):
        raise ValueError("no home folder in the output")
    clock = _number(values, "clock")
    if clock is None:
        raise ValueError("no clock in the output")
    free_kib, memory_kib = _number(values, "free_kib"), _number(values, "memory_kib")
    return Probe(
        root=values["root"],
        model=_shown(values, "model"),
        machine=_shown(values, "machine") or "",
        system_bits=_number(values, "bits"),
        system=_shown(values, "system"),
        release=_shown(values, "release"),
        glibc=_version(values.get("glibc", "")),
        memory_mib=None if memory_kib is None else memory_kib >> 10,
        free_bytes=None if free_kib is None else free_kib << 10,
        has_systemd=is_systemd_state(values.get("systemd", "")),
        clock_ahead_s=clock - now_s,
        python=_python(values),
        stored=frozenset(listed.get("store", ())),
        environments=frozenset(listed.get("envs", ())),
        codes=frozenset(listed.get("code", ())),
        commands=tuple(listed.get("command", ())),
    )


def _number(values: Mapping[str, str], key: str) -> int | None:
    """Return the whole number of a property; None if it is missing or no number."""
    value = values.get(key, "")
    return int(value) if value.isdecimal() else None


def _shown(values: Mapping[str, str], key: str) -> str | None:
    """Return the text of a property, printable and not too long; None if it is missing or empty."""
    return one_line(values.get(key, ""))[:100] or None


def _version(text: str) -> tuple[int, int] | None:
    """Return major and minor number of a version such as "3.11.2" or "glibc 2.36"."""
    match = re.fullmatch(r"(?:glibc )?([0-9]{1,3})\.([0-9]{1,3})(?:\..*)?", text)
    return (int(match.group(1)), int(match.group(2))) if match else None


def _python(values: Mapping[str, str]) -> Python | None:
    """Return the Python in a line of `_PROBE_PYTHON`, such as "3.11 64 1 /usr/bin/python3" (1: with picamera2)."""
    line = r"(?P<version>[0-9]+\.[0-9]+) (?P<bits>32|64) (?P<picamera2>[01]) (?P<path>/.*)"
    match = re.fullmatch(line, values.get("python", ""))
    version = _version(match["version"]) if match else None
    if match is None or version is None or not match["path"].isprintable():
        return None
    return Python(match["path"], version, int(match["bits"]), picamera2=match["picamera2"] == "1")


# $1: code for Python. Control characters are removed at the end, so that each property is one line.
_PROBE = r"""
{
root=${XDG_CACHE_HOME:-$HOME/.cache}/edgekit/board
echo "root=$root"
echo "machine=$(uname -m)"
echo "bits=$(getconf LONG_BIT 2>/dev/null)"
echo "glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null)"
(. /etc/os-release 2>/dev/null; echo "system=$PRETTY_NAME"; echo "release=$VERSION_CODENAME")
echo "model=$(tr -d '\000' </sys/firmware/devicetree/base/model 2>/dev/null)"
while read -r key value unit; do
    case $key in MemTotal:) echo "memory_kib=$value"; break ;; esac
done 2>/dev/null </proc/meminfo
place=$root  # its disk may be another than the home's, and the folder need not exist yet
until [ -d "$place" ]; do place=$(dirname "$place"); done
df -Pk "$place" 2>/dev/null | { read -r head; read -r disk all used free rest; echo "free_kib=$free"; }
echo "clock=$(date +%s)"
echo "systemd=$(systemctl is-system-running 2>/dev/null)"
python=$(command -v python3) && echo "python=$("$python" -I -c "$1" 2>/dev/null)"
for found in "$(command -v edgekit)" "$HOME/.local/bin/edgekit" "$HOME/edgekit-env/bin/edgekit"; do
    [ -x "$found" ] && echo "command=$found"
done
cd "$root" 2>/dev/null && for found in envs/* code/* store/*; do
    [ -e "$found" ] && echo "${found%%/*}=${found#*/}"
done
:
} | tr -d '\001-\011\013-\037\177'
"""

# Importing some modules of the standard library takes a second on a Pi: these are fast.
_PROBE_PYTHON = """
import sys, importlib.util
camera = importlib.util.find_spec('picamera2') is not None
print('%d.%d' % sys.version_info[:2], 64 if sys.maxsize > 2**32 else 32, int(camera), sys.executable)
"""
