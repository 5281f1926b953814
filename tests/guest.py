"""A virtual machine with Debian's kernel and this machine's files, read-only over 9p.

It therefore runs the Python and the edgekit under test. It is emulated without KVM, which not every machine has.
"""

from __future__ import annotations

import lzma
import os
import platform
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

# The guest takes minutes on an idle machine; the limit is for a busy machine.
_BOOTED_S = 3600
_TOOLS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "busybox": "busybox-static",
    "modprobe": "kmod",
    "cpio": "cpio",
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
}
_MODULES = ("virtio_pci", "9pnet_virtio", "9p")
# Mount point of the writable folder in the guest.
SHARE = "/mnt"

_INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
{modules}
opts=trans=virtio,version=9p2000.L,msize=512000
mount -t 9p -o ro,cache=loose,$opts root /system
mount -t 9p -o $opts share /system{share}
for place in proc sys dev; do mount --move /$place /system/$place; done
mount -t tmpfs tmp /system/run; mkdir /system/run/tmp
chroot /system /bin/sh {share}/script > /system{share}/output 2>&1
poweroff -f
"""


class UnavailableError(Exception):
    """A virtual machine is not possible here; the message names the reason."""


def run_in_guest(command: Sequence[str], share: Path, modules: Mapping[str, str]) -> str:
    """Boot, run `command` with the folder `share` mounted at `SHARE`, and return its output.

    Args:
        command: Program and arguments.
        share: The folder.
        modules: Kernel modules to load: name → parameters.

    Raises:
        UnavailableError: A virtual machine is not possible here.
    """
    machine = machine_words(f"exec {shlex.join(command)}\n", share, modules)
    console = share / "console"
    try:
        with console.open("wb") as stream:
            streams = {"stdin": subprocess.DEVNULL, "stdout": stream, "stderr": subprocess.STDOUT}
            subprocess.run([*machine, "-nic", "none"], **streams, timeout=_BOOTED_S)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"the guest did not end: {console.read_text(errors='replace')[-2000:]}") from None
    output = share / "output"
    assert output.exists(), console.read_text(errors="replace")[-2000:]
    return output.read_text(errors="replace")


def machine_words(script: str, share: Path, modules: Mapping[str, str]) -> list[str]:
    """Return the qemu command that boots a machine; the machine ends with `script`, its console is qemu's stdout.

    Output of the script is in `share/output`. The caller adds disks and networks.

    Raises:
        UnavailableError: A virtual machine is not possible here.
    """
    if os.geteuid() != 0:
        raise UnavailableError("the guest shares this machine's files, which needs root")
    if platform.machine() != "x86_64":
        raise UnavailableError("only x86-64 machines are supported")
    missing = [package for tool, package in _TOOLS.items() if shutil.which(tool) is None]
    if missing:
        raise UnavailableError(f"apt-get install {' '.join(missing)}")
    system = _unpacked_kernel()
    version = next((system / "usr/lib/modules").iterdir()).name
    initramfs = _initramfs(system, version, share, modules)
    settings = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/run/tmp", "TMPDIR": "/run/tmp"}
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in settings.items())
    (share / "script").write_text(exports + script)
    return [
        "qemu-system-x86_64", "-M", "q35", "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "1G",
        "-kernel", str(system / "boot" / f"vmlinuz-{version}"), "-initrd", str(initramfs),
        "-append", "console=ttyS0 quiet panic=-1 no_timer_check", "-no-reboot",
        "-virtfs", "local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap",
        "-virtfs", f"local,path={share},mount_tag=share,security_model=none,multidevs=remap",
        "-display", "none", "-monitor", "none", "-serial", "stdio",
    ]  # fmt: skip


def _unpacked_kernel() -> Path:
    """Return the folder of Debian's newest kernel, downloaded once."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgekit-guest"
    depends = subprocess.run(["apt-cache", "depends", "linux-image-amd64"], capture_output=True, text=True).stdout
    named = re.search(r"Depends: (linux-image-\S+)", depends)
    if named is None:
        raise UnavailableError("apt has no package linux-image-amd64: run apt-get update")
    folder = cache / named[1]
    if not folder.exists():
        fresh = folder.with_suffix(".new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        fetched = subprocess.run(["apt-get", "download", "-qq", named[1]], cwd=fresh, capture_output=True, text=True)
        if fetched.returncode:
            raise UnavailableError(f"apt-get download {named[1]}: {fetched.stderr.strip()[-200:]}")
        for package in fresh.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, fresh], check=True)
            package.unlink()
        version = next((fresh / "usr/lib/modules").iterdir()).name
        subprocess.run(["depmod", "-b", fresh / "usr", version], check=True)
        fresh.rename(folder)
    return folder


def _initramfs(system: Path, version: str, share: Path, modules: Mapping[str, str]) -> Path:
    root = share / "initramfs"
    for name in ("bin", "proc", "sys", "dev", "system", "modules"):
        (root / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "", root / "bin/busybox")
    loads = []
    for module in (*_MODULES, *modules):
        shown = ["modprobe", "-d", str(system / "usr"), "-S", version, "--show-depends", module]
        answer = subprocess.run(shown, capture_output=True, text=True, check=True).stdout
        for packed in map(Path, re.findall(r"^insmod (\S+\.ko\S*)", answer, re.MULTILINE)):
            name = packed.name.removesuffix(".xz")
            plain = root / "modules" / name
            if not plain.exists():
                plain.write_bytes(lzma.decompress(packed.read_bytes()))
                loads.append(f"insmod /modules/{name} {modules.get(name.removesuffix('.ko'), '')}".rstrip())
    init = root / "init"
    init.write_text(_INIT.format(modules="\n".join(loads), share=SHARE))
    init.chmod(0o755)
    target = share / "initramfs.cpio"
    names = "\0".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
    with target.open("wb") as archive:
        pack = ["cpio", "-o", "-0", "-H", "newc", "--quiet"]
        subprocess.run(pack, input=names.encode(), cwd=root, stdout=archive, check=True)
    return target
