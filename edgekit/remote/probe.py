"""What a board is and has, asked with one shell script in one go."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

from edgekit.errors import HostError
from edgekit.remote.ssh import Connection, shell
from edgekit.remote.transfer import Store
from edgekit.text import one_line

MIN_PYTHON = (3, 11)
_LIMIT_BYTES = 1 << 18
_HASH = r"[0-9a-f]{64}"


@dataclass(frozen=True)
class Python:
    """The board's own Python: where it is, its version and width, and whether it sees picamera2."""

    path: str
    version: tuple[int, int]
    bits: int
    picamera2: bool


@dataclass(frozen=True)
class Probe:
    """What a board says of itself.

    `root` is edgekit's folder in the user's cache there, `environments` and `codes` name what is installed in it.
    `clock_ahead_s` is the board's clock less this machine's. `commands` are edgekits found there, by path.
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
    clock_ahead_s: float
    python: Python | None
    store: Store
    environments: frozenset[str]
    codes: frozenset[str]
    commands: tuple[str, ...]

    def describe(self) -> str:
        """Return one line for people."""
        python = "no Python" if self.python is None else "Python {}.{}".format(*self.python.version)
        memory = "" if self.memory_mib is None else f", {self.memory_mib} MiB memory"
        free = "" if self.free_bytes is None else f", {self.free_bytes >> 20} MiB disk free"
        return f"{self.model or 'unknown board'}, {self.system or 'unknown system'}, {python}{memory}{free}"


def probe(connection: Connection) -> Probe:
    """Return what the board says of itself.

    Raises:
        HostError: It cannot be asked.
    """
    asked_s = time.time()
    done = connection.run(shell(_PROBE, _ASK_PYTHON), limit_bytes=_LIMIT_BYTES)
    try:
        return parse_probe(done.text, asked_s)
    except ValueError as error:
        complaint = f": {done.complaint}" if done.complaint else ""
        raise HostError(f"{connection.host.label}: its answers make no sense ({error}){complaint}") from error


def parse_probe(text: str, now_s: float) -> Probe:
    """Return the answers of the script as data.

    Raises:
        ValueError: A needed one is missing.
    """
    answers: dict[str, str] = {}
    there: list[str] = []
    commands: list[str] = []
    for line in text.splitlines():
        key, separator, value = line.partition("=")
        if not separator:
            continue
        if key == "there":
            there.append(value)
        elif key == "command":
            commands.append(value)
        else:
            answers.setdefault(key, value)
    root = answers.get("root", "")
    if not root.startswith("/") or not root.isprintable():
        raise ValueError("it names no home folder")
    clock = _number(answers, "clock")
    if clock is None:
        raise ValueError("it tells no time")
    free_kib = _number(answers, "free_kib")
    memory_kib = _number(answers, "memory_kib")
    return Probe(
        root=root,
        model=_shown(answers, "model"),
        machine=one_line(answers.get("machine", ""))[:40],
        system_bits=_number(answers, "bits"),
        system=_shown(answers, "system"),
        release=_shown(answers, "release"),
        glibc=_version(answers.get("glibc", "")),
        memory_mib=None if memory_kib is None else memory_kib >> 10,
        free_bytes=None if free_kib is None else free_kib << 10,
        clock_ahead_s=clock - now_s,
        python=_python(answers),
        store=Store(f"{root}/store", *_stored(there)),
        environments=_named(there, "envs"),
        codes=_named(there, "code"),
        commands=tuple(commands),
    )


def _number(answers: Mapping[str, str], key: str) -> int | None:
    value = answers.get(key, "")
    return int(value) if re.fullmatch(r"[0-9]{1,15}", value) else None


def _shown(answers: Mapping[str, str], key: str) -> str | None:
    return one_line(answers.get(key, ""))[:100] or None


def _version(text: str) -> tuple[int, int] | None:
    match = re.fullmatch(r"(?:glibc )?([0-9]{1,3})\.([0-9]{1,3})(?:\..*)?", text)
    return (int(match.group(1)), int(match.group(2))) if match else None


def _python(answers: Mapping[str, str]) -> Python | None:
    told = re.fullmatch(r"([0-9]+\.[0-9]+) (32|64) ([01]) (/.*)", answers.get("python", ""))
    version = _version(told.group(1)) if told else None
    if told is None or version is None or not told.group(4).isprintable():
        return None
    return Python(told.group(4), version, int(told.group(2)), told.group(3) == "1")


def _stored(there: list[str]) -> tuple[frozenset[str], dict[str, int]]:
    whole, parts = set(), {}
    for entry in there:
        match = re.fullmatch(rf"store/({_HASH}(?:\.[a-z0-9]{{1,10}})?)(\.part)? ([0-9]{{1,15}})", entry)
        if match and match.group(2):
            parts[match.group(1)] = int(match.group(3))
        elif match:
            whole.add(match.group(1))
    return frozenset(whole), parts


def _named(there: list[str], kind: str) -> frozenset[str]:
    matches = (re.fullmatch(rf"{kind}/({_HASH})/\.ready [0-9]+", entry) for entry in there)
    return frozenset(match.group(1) for match in matches if match)


# $1: what Python is asked. Control characters are taken out at the end, so that one answer is one line.
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
df -Pk "$HOME" 2>/dev/null | { read -r head; read -r disk all used free rest; echo "free_kib=$free"; }
echo "clock=$(date +%s)"
python=$(command -v python3) && echo "python=$("$python" -I -c "$1" 2>/dev/null)"
for found in "$(command -v edgekit)" "$HOME/.local/bin/edgekit" "$HOME/edgekit-env/bin/edgekit"; do
    [ -x "$found" ] && echo "command=$found"
done
cd "$root" 2>/dev/null && for found in envs/*/.ready code/*/.ready store/*; do
    [ -f "$found" ] && echo "there=$found $(stat -c %s "$found")"
done
:
} | tr -d '\001-\011\013-\037\177'
"""

# Only what is quickly imported: a Pi takes a second for some of the standard library.
_ASK_PYTHON = """
import sys, importlib.util
camera = importlib.util.find_spec('picamera2') is not None
print('%d.%d' % sys.version_info[:2], 64 if sys.maxsize > 2**32 else 32, int(camera), sys.executable)
"""
