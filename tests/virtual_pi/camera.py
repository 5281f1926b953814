"""A camera for the emulated board: the published picamera2 on Debian's libcamera and its virtual camera.

The camera plays the JPEGs of `FRAMES` in an endless loop, as NV12. The lines of picamera2 that need a Pi's kernel or
firmware are replaced, see `_CHANGES`.
"""

from __future__ import annotations

import configparser
import subprocess
import sys
from pathlib import Path

from edgekit.remote.payload import Target

from .errors import UnavailableError

PACKAGES = "libcamera-ipa,python3-libcamera,python3-prctl"
FRAMES = "opt/frames"
_PICAMERA2 = "picamera2==0.3.38"
# The requirements of picamera2 for capturing and recording; the others are for sensors with built-in networks.
_NEEDED = ("av", "numpy", "piexif", "pillow", "simplejpeg", "videodev2")
_EXTRAS = ("device", "mqtt", "preview", "teach")
_SETUP = Path(__file__).parents[2] / "setup.cfg"
# Trixie's.
_TARGET = Target("aarch64", (3, 13), (2, 41))
_PIP_TIMEOUT_S = 600

_CAMERA = f"""
"Virtual0":
  supported_formats:
  - width: 640
    height: 480
    frame_rates: [30]
  frames:
    path: "/{FRAMES}/"
  location: CameraLocationFront
  model: imx219
"""

# Modules for screens without a desktop and for raw files.
_ABSENT = {
    "kms.py": "class _Formats:\n    def __getattr__(self, name):\n        return name\n\n\nPixelFormats = _Formats()\n",
    "pidng/__init__.py": "",
    "pidng/camdefs.py": "class Picamera2Camera:\n    pass\n",
    "pidng/core.py": "class PICAM2DNG:\n    pass\n",
}

_ALLOCATOR = "allocators/dmaallocator.py"
_SYNC = "fcntl.ioctl(self.__fb.planes[0].fd, DMA_BUF_IOCTL_SYNC, dma_sync)"
# File, old lines, new lines.
_CHANGES = (
    # No /dev/dma_heap: buffers are ordinary shared memory, which needs no synchronisation.
    (
        "dma_heap.py",
        "class DmaHeap:\n",
        "class DmaHeap:\n"
        "    isValid = True\n\n"
        "    def alloc(self, name, size):\n"
        "        fd = os.memfd_create(name)\n"
        "        os.ftruncate(fd, -(-size // 4096) * 4096)\n"
        "        return UniqueFD(fd)\n\n"
        "    def close(self):\n"
        "        pass\n\n\n"
        "class _KernelsDmaHeap:\n",
    ),
    (_ALLOCATOR, _SYNC, "0"),
    # The virtual camera needs NV12's luma and chroma as two planes; the Pi's uses one.
    (
        _ALLOCATOR,
        "plane[0].length = stream_config.frame_size\n",
        "plane[0].length = stream_config.frame_size * 2 // 3\n"
        "                plane.append(libcamera.FrameBuffer.Plane())\n"
        "                plane[1].fd = fd.get()\n"
        "                plane[1].offset = plane[0].length\n"
        "                plane[1].length = stream_config.frame_size - plane[0].length\n",
    ),
    # It has no sensor and therefore no modes.
    (
        "picamera2.py",
        "raw_config = self.camera.generate_configuration([libcamera.StreamRole.Raw])\n        raw_formats",
        "return [{'format': 'SBGGR10_CSI2P', 'size': (640, 480)}]\n        raw_formats",
    ),
)


def ingredients() -> bytes:
    """Return the additional ingredients of a system with a camera; when they change, the system is made again."""
    return Path(__file__).read_bytes() + "\n".join(_requirements()).encode()


def add_camera(root: Path) -> Path:
    """Install picamera2, its camera and the dependencies of `edgekit run` in an unpacked Trixie.

    Returns:
        The new folder of Python packages.

    Raises:
        UnavailableError: Packages cannot be downloaded.
    """
    packages = root / "usr/local/lib/python{}.{}/dist-packages".format(*_TARGET.python)
    _install(packages, [*_requirements(), *_NEEDED])
    _install(packages, ["--no-deps", _PICAMERA2])
    for name, text in _ABSENT.items():
        path = packages / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    for name, old, new in _CHANGES:
        path = packages / "picamera2" / name
        text = path.read_text()
        assert old in text, f"{_PICAMERA2} has no such lines in {name}: {old}"
        path.write_text(text.replace(old, new))
    camera = root / "usr/share/libcamera/pipeline/virtual/virtual.yaml"
    camera.parent.mkdir(parents=True, exist_ok=True)
    camera.write_text(_CAMERA)
    return packages


def _requirements() -> list[str]:
    # From the checkout, because the installed metadata may be older.
    setup = configparser.ConfigParser()
    setup.read(_SETUP)
    texts = [setup["options"]["install_requires"], *(setup["options.extras_require"][name] for name in _EXTRAS)]
    lines = [line for text in texts for line in text.split("\n")]
    return [line for line in lines if line and not line.startswith(("#", "edgekit-pi"))]


def _install(packages: Path, what: list[str]) -> None:
    arguments = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    arguments += ["--root-user-action=ignore", "--no-compile", "--upgrade", "--target", str(packages)]
    arguments += ["--only-binary=:all:", "--implementation", "cp"]
    arguments += ["--python-version", "{}.{}".format(*_TARGET.python)]
    for platform in _TARGET.platforms:
        arguments += ["--platform", platform]
    try:
        done = subprocess.run([*arguments, *what], capture_output=True, text=True, timeout=_PIP_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"pip took longer than {_PIP_TIMEOUT_S} s") from error
    if done.returncode != 0:
        raise UnavailableError(f"pip failed: {done.stderr.strip()[-300:]}")
