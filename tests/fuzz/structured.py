"""Mutated inputs with a valid structure: archives with correct checksums, headers with correct lengths.

Plain mutations of bytes rarely pass a checksum.
"""

from __future__ import annotations

import gzip
import io
import random
import tarfile
from functools import cache
from typing import Any

from tests.fuzz.mutate import mutated


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
