"""A virtual machine with Debian's kernel and this machine's files.

Kernel and a hand-made initramfs are all that is made; the guest's root is this machine's, read-only, over 9p, so that
the Python and the edgekit under test run there as they are. Emulated without KVM, so that it works anywhere.
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

# Minutes on a machine with nothing else to do; this is for one that has.
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
# Where the guest finds the folder that it may write to.
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
    """There can be no such machine here; the text says why."""


def run_in_guest(command: Sequence[str], share: Path, modules: Mapping[str, str]) -> str:
    """Boot, run `command` with the folder `share` at `SHARE`, and return what it printed.

    Args:
        command: The words.
        share: The folder.
        modules: Of the kernel, by name, with their parameters.

    Raises:
        UnavailableError: Something is missing for that here.
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
    """Return the words that boot a machine, which ends when `script` does; its console is qemu's stdout.

    What the script prints is `share/output`. Disks and networks are for the caller to add.

    Raises:
        UnavailableError: Something is missing for that here.
    """
    if os.geteuid() != 0:
        raise UnavailableError("the guest's root is this machine's: that needs root")
    if platform.machine() != "x86_64":
        raise UnavailableError("only x86 machines are made")
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
    """Return the folder with Debian's newest kernel, fetched once."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgekit-guest"
    depends = subprocess.run(["apt-cache", "depends", "linux-image-amd64"], capture_output=True, text=True).stdout
    named = re.search(r"Depends: (linux-image-\S+)", depends)
    if named is None:
        raise UnavailableError("apt knows no linux-image-amd64")
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
