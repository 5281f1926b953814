"""Mutated inputs with a valid structure: archives with correct checksums, headers with correct lengths.

Plain mutations of bytes rarely pass a checksum.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

from tests.fuzz.mutate import mutated

ROOT = Path(__file__).parents[2]
_NUMBERS = (0, 1, 2, 7, 48, 255, 65_536, 1 << 31, (1 << 63) - 1)


def ncnn(examples: list[bytes], choice: random.Random) -> bytes:
    """Return a .ncnn file with one mutated, added or removed member."""
    with zipfile.ZipFile(io.BytesIO(choice.choice(examples))) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    at = choice.randrange(len(members))
    kind = choice.randrange(6)
    if kind == 0:
        members.insert(choice.randrange(4), choice.choice((members[at], ("x" * 300, b""), ("../x", b"x"))))
    elif kind == 1:
        del members[at]
    else:
        members[at] = (members[at][0], mutated(members[at][1], choice))
    buffer = io.BytesIO()
    packing = zipfile.ZIP_STORED if choice.random() < 0.9 else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(buffer, "w", packing) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def checkpoint(choice: random.Random) -> bytes:
    """Return a safetensors file with a mutated metadata value or tensor entry, and the correct length of the header."""
    content = (ROOT / "edgekit/assets/default.safetensors").read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8:end]), content[end:]
    names = [name for name in header if name != "__metadata__"]
    kind = choice.randrange(5)
    if kind == 0:
        metadata = header["__metadata__"]
        key = choice.choice(list(metadata))
        metadata[key] = mutated(metadata[key].encode(), choice).decode(errors="replace")
    elif kind == 1:
        entry = header[choice.choice(names)]
        entry["dtype"] = choice.choice(("F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "C64", "x", "", 7, None))
    elif kind == 2:
        entry = header[choice.choice(names)]
        entry["shape"] = choice.choice(([], [0], list(entry["shape"])[::-1], [choice.choice(_NUMBERS)] * 2, [-1], "x"))
    elif kind == 3:
        entry = header[choice.choice(names)]
        entry["data_offsets"] = [choice.choice(_NUMBERS), choice.choice((*_NUMBERS, len(data), len(data) + 1))]
    else:
        one, other = choice.sample(names, 2)
        header[choice.choice((one, "x", "__metadata__", "", one * 50))] = header.pop(other)
    packed = json.dumps(header).encode()
    return len(packed).to_bytes(8, "little") + packed + data


def hdf5(choice: random.Random) -> bytes:
    """Return a valid HDF5 file in the form of the EdgeCNN authors' data set, with one unusual entry."""
    import h5py
    import numpy as np

    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=choice.choice((None, "latest"))) as file:
        for usage in ("Training", "PublicTest"):
            file[f"{usage}_pixel"] = np.zeros((3, 8, 8), np.uint8)
            file[f"{usage}_label"] = np.arange(3)
        name = choice.choice(list(file))
        del file[name]
        _hdf5_entry(file, name, choice)
    return buffer.getvalue()


def _hdf5_entry(file: Any, name: str, choice: random.Random) -> None:
    import h5py
    import numpy as np

    shape = tuple(choice.choice((0, 1, 3, 3, 8, 1 << 20)) for _ in range(choice.randrange(6)))
    kind = choice.randrange(11)
    if kind == 0:
        dtype = choice.choice(
            ("f2", "f8", ">i4", "u8", "?", "S5", "c8", h5py.string_dtype(), h5py.ref_dtype, [("x", "i4"), ("y", "f4")],
             h5py.vlen_dtype(np.int32), h5py.enum_dtype({"x": 1}), h5py.opaque_dtype("M8[s]"))
        )  # fmt: skip
        file.create_dataset(name, (3,) * choice.randrange(1, 4), dtype)
    elif kind == 1:
        file.create_dataset(name, shape, "u1", chunks=True if shape and 0 not in shape else None)
    elif kind == 2:
        file.create_dataset(name, (1 << choice.randrange(20, 62), 48, 48), "u1", chunks=(1, 48, 48))
    elif kind == 3:
        file[name] = choice.choice((np.array([0, -1, 300]), np.array([np.nan] * 3), np.array([1e300, 0, 0])))
    elif kind == 4:
        file.create_group(name)
    elif kind == 5:
        file[name] = h5py.SoftLink(choice.choice((f"/{name}", "/missing", "/Training_pixel", "/", ".")))
    elif kind == 6:
        file[name] = h5py.ExternalLink(choice.choice(("missing.h5", "/etc/passwd", "/dev/zero")), "/x")
    elif kind == 7:
        file.create_dataset(name, (3, 8, 8), "u1", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])
    elif kind == 8:
        layout = h5py.VirtualLayout((3, 8, 8), "u1")
        layout[:] = h5py.VirtualSource("/etc/passwd", "x", (3, 8, 8))
        file.create_virtual_dataset(name, layout)
    elif kind == 9:
        file[name] = choice.choice((7, "text", np.datetime64("2026-01-01").astype(int), h5py.Empty("f4")))
    else:
        file[name] = np.zeros((choice.randrange(3), *(choice.choice((0, 1, 8)) for _ in range(3))), np.uint8)


@cache
def _image() -> bytes:
    import cv2
    import numpy as np

    return cv2.imencode(".png", np.arange(64, dtype=np.uint8).reshape(8, 8))[1].tobytes()


def archive(choice: random.Random) -> bytes:
    """Return a .tar or .tar.gz of images in class folders, with entries of unusual kinds, names and sizes."""
    kinds = choice.choice((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kinds) as packed:
        for split in ("train", "test"):
            for label in ("happy", "sad"):
                _add(packed, f"{split}/{label}/1.png", _image())
        for _ in range(choice.randrange(3)):
            _add_strange(packed, choice)
    content = buffer.getvalue()
    if choice.random() < 0.4:
        content = mutated(content, choice)
    if choice.random() < 0.4:
        content = gzip.compress(content, 1)
        content = mutated(content, choice) if choice.random() < 0.2 else content
    return content


def _add(packed: tarfile.TarFile, name: str, content: bytes, **fields: Any) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    for field, value in fields.items():
        setattr(entry, field, value)
    packed.addfile(entry, io.BytesIO(content))


def _add_strange(packed: tarfile.TarFile, choice: random.Random) -> None:
    names = ("/etc/passwd.png", "../../up.png", "train/happy/./1.png", "a" * 90 + ".png", "train/\x1b[2J/1.png", ".png")
    name = choice.choice((*names, "train/happy/1.png", "photos.csv", "groups.csv", "train_labels.csv", "train/happy"))
    kind = choice.randrange(5)
    if kind == 0:
        types = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE, b"Z")
        link = choice.choice((name, "/etc/passwd", "train/happy/1.png", ""))
        _add(packed, name, b"", type=choice.choice(types), linkname=link)
    elif kind == 1:
        _add(packed, name, mutated(_image(), choice))
    elif kind == 2:
        table = b"path,label,person\ntrain/happy/1.png,happy,1\n"
        _add(packed, choice.choice(("photos.csv", "groups.csv", "list_partition_label.txt")), mutated(table, choice))
    elif kind == 3 and packed.format == tarfile.PAX_FORMAT:
        headers = {"size": "-1", "path": "x" * 2000, "GNU.sparse.map": "0,x", "GNU.sparse.size": "1e9", "mtime": "nan"}
        key = choice.choice(list(headers))
        _add(packed, name, _image(), pax_headers={key: headers[key]})
    else:
        _add(packed, name, b"", mtime=choice.choice((0, -1, 1 << 40)) if packed.format == tarfile.PAX_FORMAT else 0)
