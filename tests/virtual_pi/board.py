"""A Raspberry Pi 3B+ emulated by qemu-user: Debian's own arm64 sshd on a Cortex-A53, in namespaces.

Instructions that a Cortex-A53 does not have are illegal, as on the board. Speed and memory differ. /sys consists
of plain files of a "Raspberry Pi 3 Model B Plus", which tests may change.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

from edgekit.remote.hosts import Host

from .errors import UnavailableError
from .system import USER, USER_ID, make_system

_CPU = "cortex-a53"
_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_HANDLER = "qemu-aarch64"
_START_TIMEOUT_S = 240
_MODEL = "Raspberry Pi 3 Model B Plus Rev 1.3"
_MIDR_CORTEX_A53 = "0x00000000410fd034"

# Output of the firmware's tool on a Pi 3B+ (Raspberry Pi documentation, "vcgencmd"), values from /sys.
_VCGENCMD = """#!/bin/sh
case "$1 $2" in
"measure_temp "*) t=$(cat /sys/class/thermal/thermal_zone0/temp); echo "temp=$((t / 1000)).$((t % 1000 / 100))'C" ;;
"get_throttled "*) echo "throttled=$(cat /sys/throttled)" ;;
"measure_clock arm") echo "frequency(48)=$(cat /sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq)000" ;;
*) echo 'error=1 error_msg="Command not registered"' ;;
esac
"""

# Runs in the new namespaces. $1 system, $2 upper, $3 work, $4 root, $5 sys
_BOOT = """
set -e
hostname raspberrypi
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2,workdir=$3" "$4"
mount -t proc proc "$4/proc"
mount --rbind "$5" "$4/sys"
mount -t tmpfs -o mode=755 dev "$4/dev"
for name in null zero full random urandom tty; do
    : >"$4/dev/$name"
    mount --bind "/dev/$name" "$4/dev/$name"
done
mkdir "$4/dev/pts" "$4/dev/shm"
mount -t devpts -o newinstance,ptmxmode=666 devpts "$4/dev/pts"
mount -t tmpfs -o mode=1777 shm "$4/dev/shm"
ln -s pts/ptmx "$4/dev/ptmx"
ln -s /proc/self/fd "$4/dev/fd"
exec chroot "$4" /usr/sbin/sshd -D -e -f /etc/ssh/sshd_config.virtual
"""


class VirtualPi:
    """A board with its own folder, on a port of the loopback interface; it runs within the `with` block.

    Its disk is a layer over the shared system, so that every board starts without changes. `disk_folder` is another
    folder for that layer, for example on a small disk. With `camera`, libcamera's virtual camera plays the images in
    `camera.FRAMES`.

    Raises on entering:
        UnavailableError: It cannot run on this machine; the message names the reason.
    """

    def __init__(
        self, folder: Path, suite: str = "trixie", disk_folder: Path | None = None, camera: bool = False
    ) -> None:
        self.folder = folder
        self._camera = camera
        self._suite = suite
        self._disk = disk_folder or folder / "disk"
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def host(self) -> Host:
        """The board as a host for edgekit."""
        options = ("-F", "none", "-o", f"UserKnownHostsFile={self.folder / 'known_hosts'}", "-o", "IdentitiesOnly=yes")
        return Host(f"{USER}@127.0.0.1", "pi3", self.port, self.folder / "id", options)

    @property
    def arguments(self) -> list[str]:
        """Options of the command line that reach the board."""
        host = self.host
        options = [f"--ssh-option={option}" for option in host.ssh_options]
        return ["--host", host.address, "--port", str(host.port), "--identity", str(host.identity), *options]

    def ssh(self, *words: str) -> list[str]:
        """Return the ssh command that runs the last of `words`, a shell command; the others are options of ssh."""
        host = self.host
        options = ["-o", "BatchMode=yes", "-p", str(host.port), "-i", str(host.identity), *host.ssh_options]
        return ["ssh", *options, *words[:-1], host.address, words[-1]]

    @property
    def sys(self) -> Path:
        """The board's /sys, as files that tests may change."""
        return self.folder / "sys"

    def path(self, inside: str) -> Path:
        """Return the path of a file in the board's layer: a file that the board or a test has written."""
        return self._disk / "upper" / inside.lstrip("/")

    def live(self, inside: str) -> Path:
        """Return the path of a file of the running board, including those that are not on its disk (/dev)."""
        return next(_inside(self.folder / "root")) / "root" / inside.lstrip("/")

    def plant(self, inside: str, content: str, mode: int = 0o755) -> None:
        """Write a file into the board before it boots."""
        assert self._process is None, "a layer must not change under a running system"
        target = self.path(inside)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
        target.chmod(mode)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self) -> None:
        """Boot the board; the files on its disk are kept."""
        system = self.prepare()
        root = self.folder / "root"
        # The kernel kills the board when this process ends, also after a kill.
        unshare = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--uts", "--ipc", "--fork"]
        unshare += ["--kill-child", "--propagation", "private"]
        places = [system, self._disk / "upper", self._disk / "work", root, self.sys]
        with (self.folder / "sshd.log").open("wb") as log:
            self._process = subprocess.Popen(
                [*unshare, "sh", "-c", _BOOT, "boot", *map(str, places)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "QEMU_CPU": _CPU},
            )
        self._wait()

    def prepare(self) -> Path:
        """Create the disk, the keys and the configuration without a boot, and return the shared system.

        Raises:
            UnavailableError: It cannot run on this machine.
        """
        system = make_system(self._suite, self._camera)
        _register_emulator()
        for folder in (self._disk / "upper", self._disk / "work", self.folder / "root"):
            folder.mkdir(parents=True, exist_ok=True)
        if not self.sys.exists():
            _make_sys(self.sys)
        self._make_keys()
        with socket.socket() as free:
            free.bind(("127.0.0.1", self.port))
            self.port = int(free.getsockname()[1])
        self._configure()
        return system

    def stop(self) -> None:
        """Kill all processes of the board at once, like a power cut."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGKILL)  # `unshare --fork` ignores SIGTERM
            process.wait()
            # The namespaces and their mounts exist until their last process has ended.
            _wait_until(lambda: not any(_inside(self.folder / "root")), "its disk is still held")

    def _make_keys(self) -> None:
        if not (self.folder / "id").exists():
            subprocess.run(_keygen(self.folder / "id"), check=True)
        host_key = self.path("etc/ssh/ssh_host_ed25519_key")
        if not host_key.exists():
            host_key.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(_keygen(host_key), check=True)
        authorized = self.path(f"home/{USER}/.ssh/authorized_keys")
        authorized.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.folder / "id.pub", authorized)
        for path, mode in ((authorized, 0o600), (authorized.parent, 0o700), (authorized.parents[1], 0o755)):
            os.chown(path, USER_ID, USER_ID)
            path.chmod(mode)

    def _configure(self) -> None:
        key = self.path("etc/ssh/ssh_host_ed25519_key.pub").read_text().split()
        known = self.folder / "known_hosts"
        if not known.exists():
            known.write_text(f"[127.0.0.1]:{self.port} {key[0]} {key[1]}\n")
        config = self.path("etc/ssh/sshd_config.virtual")
        config.write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey /etc/ssh/ssh_host_ed25519_key\nUsePAM no\n"
            f"PasswordAuthentication no\nPidFile none\nSetEnv QEMU_CPU={_CPU}\n"
            "Subsystem sftp /usr/lib/openssh/sftp-server\n"
        )
        tool = self.path("usr/bin/vcgencmd")
        tool.parent.mkdir(parents=True, exist_ok=True)
        tool.write_text(_VCGENCMD)
        tool.chmod(0o755)

    def _wait(self) -> None:
        def responds() -> bool:
            if self._process is None or self._process.poll() is not None:
                return True
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as line:
                    line.settimeout(30)  # an emulated sshd on a busy machine takes seconds to respond
                    return line.recv(4) == b"SSH-"
            except OSError:
                return False

        _wait_until(responds, "its sshd does not answer")
        if self._process is None or self._process.poll() is not None:
            raise UnavailableError(f"it does not boot: {(self.folder / 'sshd.log').read_text()[-500:]}")


def _register_emulator() -> None:
    if os.geteuid() != 0:
        raise UnavailableError("only root can boot it")
    for tool in ("setpriv", "unshare", "qemu-aarch64-static"):
        if shutil.which(tool) is None and shutil.which(tool.removesuffix("-static")) is None:
            raise UnavailableError(f"no {tool}: apt-get install qemu-user qemu-user-static qemu-user-binfmt util-linux")
    if not (_BINFMT / "register").exists():
        mounted = subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", str(_BINFMT)], capture_output=True)
        if mounted.returncode != 0:
            raise UnavailableError("this kernel has no binfmt_misc")
    if (_BINFMT / _HANDLER).exists():
        return
    description = Path(f"/usr/lib/binfmt.d/{_HANDLER}.conf")
    if not description.exists():
        raise UnavailableError("nothing runs arm64 programs here: apt-get install qemu-user-binfmt")
    try:
        (_BINFMT / "register").write_text(description.read_text())
    except OSError as error:
        raise UnavailableError(f"arm64 programs cannot be registered: {error.strerror}") from error


def _make_sys(folder: Path) -> None:
    files = {
        "class/thermal/thermal_zone0/temp": "48312\n",
        "class/thermal/thermal_zone0/type": "cpu-thermal\n",
        "throttled": "0x0\n",
        "firmware/devicetree/base/model": f"{_MODEL}\0",
        "firmware/devicetree/base/compatible": "raspberrypi,3-model-b-plus\0brcm,bcm2837\0",
    }
    for name in ("possible", "present", "online"):
        files[f"devices/system/cpu/{name}"] = "0-3\n"
    for processor in range(4):
        cpu = f"devices/system/cpu/cpu{processor}"
        for name in ("scaling_cur_freq", "scaling_max_freq", "cpuinfo_max_freq"):
            files[f"{cpu}/cpufreq/{name}"] = "1400000\n"
        for name in ("scaling_min_freq", "cpuinfo_min_freq"):
            files[f"{cpu}/cpufreq/{name}"] = "600000\n"
        files[f"{cpu}/cpufreq/scaling_governor"] = "ondemand\n"
        files[f"{cpu}/regs/identification/midr_el1"] = f"{_MIDR_CORTEX_A53}\n"
        files[f"{cpu}/topology/core_id"] = f"{processor}\n"
        files[f"{cpu}/topology/physical_package_id"] = "0\n"
        caches = [(1, "Data", "32K", 4, 128), (1, "Instruction", "32K", 2, 256), (2, "Unified", "512K", 16, 512)]
        for index, (level, kind, size, ways, sets) in enumerate(caches):
            cache = f"{cpu}/cache/index{index}"
            files |= {f"{cache}/level": f"{level}\n", f"{cache}/type": f"{kind}\n", f"{cache}/size": f"{size}\n"}
            files |= {f"{cache}/ways_of_associativity": f"{ways}\n", f"{cache}/number_of_sets": f"{sets}\n"}
            files[f"{cache}/coherency_line_size"] = "64\n"
            files[f"{cache}/shared_cpu_list"] = "0-3\n" if level == 2 else f"{processor}\n"
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    for name in ("class/net", "block", "kernel"):
        (folder / name).mkdir(parents=True, exist_ok=True)


def _keygen(path: Path) -> list[str]:
    return ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "virtual-pi", "-f", str(path)]


def _inside(root: Path) -> Iterator[Path]:
    """Yield the folders in /proc of the processes of a board."""
    # The mounts of a board are visible only in its namespaces, and exist until its last process ends.
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if str((process / "root").readlink()) == str(root):
                yield process


def _wait_until(holds: object, what: str) -> None:
    until_s = time.monotonic() + _START_TIMEOUT_S
    while not holds():  # type: ignore[operator]
        if time.monotonic() > until_s:
            raise UnavailableError(what)
        time.sleep(0.05)
