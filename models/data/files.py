"""The files of a data set, in a folder or a .tar: their paths first, then one at a time and within bounds."""

from __future__ import annotations

import lzma
import posixpath
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgekit.device.imaging import IMAGE_SUFFIXES
from edgekit.errors import InputError

# Called with a line on what was decided about the data.
Say = Callable[[str], None]

# Text files that say what the images are, by RAF-DB's owners (who spell it so) and on Kaggle.
LABEL_LISTS = ("list_patition_label.txt", "list_partition_label.txt")
LABEL_TABLES = ("train_labels.csv", "test_labels.csv")

_MAX_FILE_BYTES = 64 << 20
# Names are kept in an array of fixed width, and a .tar can hold names of any length.
_MAX_NAME_CHARACTERS = 500
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Files:
    """Images and label lists: `names` in the order they are read best, and `read`, which raises InputError.

    `empty_folders` hold neither, at any depth.
    """

    names: tuple[PurePosixPath, ...]
    read: Callable[[PurePosixPath], bytes]
    empty_folders: tuple[PurePosixPath, ...] = ()

    @property
    def images(self) -> tuple[PurePosixPath, ...]:
        """The names of images."""
        return tuple(name for name in self.names if name.suffix.lower() in IMAGE_SUFFIXES)


@dataclass(frozen=True)
class Placed:
    """One image: its path in `Files`, its path within the data set, its split and its class."""

    path: PurePosixPath
    name: str
    split: str
    class_name: str


@contextmanager
def open_files(path: Path) -> Iterator[Files]:
    """Open a folder or a .tar, .tar.gz or .tgz.

    Raises:
        InputError: The archive is damaged, or a path in it is endless.
    """
    if path.is_dir():
        # A link that leads nowhere is an image that is lost: reading it says so.
        found = sorted(path.rglob("*"))
        files = [file for file in found if file.is_file() or (file.is_symlink() and not file.exists())]
        names = _wanted(tuple(PurePosixPath(file.relative_to(path).as_posix()) for file in files), path)
        folders = [PurePosixPath(file.relative_to(path).as_posix()) for file in found if file.is_dir()]
        yield Files(names, lambda name: _read_file(path, name), _empty(folders, names))
        return
    # Members are read in memory and never written to disk, so their names cannot escape anywhere.
    with _damage_named(path):
        archive = tarfile.open(path)  # noqa: SIM115 - closed below
    with archive:
        with _damage_named(path):
            members = _members(archive)
        names = _wanted(tuple(members), path)
        folders = [PurePosixPath(member.name) for member in archive.getmembers() if member.isdir()]
        yield Files(names, lambda name: _read_member(path, archive, members, name), _empty(folders, names))


def _empty(folders: Iterable[PurePosixPath], names: Iterable[PurePosixPath]) -> tuple[PurePosixPath, ...]:
    filled = {folder for name in names for folder in name.parents}
    hidden = (".", "__MACOSX")
    return tuple(folder for folder in folders if folder not in filled and not folder.name.startswith(hidden))


def _wanted(names: tuple[PurePosixPath, ...], path: Path) -> tuple[PurePosixPath, ...]:
    lists = (*LABEL_LISTS, *LABEL_TABLES)
    chosen = tuple(
        name
        for name in names
        if (name.suffix.lower() in IMAGE_SUFFIXES or name.name.lower() in lists)
        # What macOS puts beside every file is called like it and is none.
        and not name.name.startswith(".")
        and "__MACOSX" not in name.parts
    )
    longest = max((len(str(name)) for name in chosen), default=0)
    if longest > _MAX_NAME_CHARACTERS:
        raise InputError(f"data '{path}': a file's path has {longest} characters: at most {_MAX_NAME_CHARACTERS}")
    return chosen


def _members(archive: tarfile.TarFile) -> dict[PurePosixPath, tarfile.TarInfo]:
    """Return the files, those that are links to another among them, once the archive proved whole."""
    listed = archive.getmembers()
    _check_end(archive)
    members = {PurePosixPath(member.name): member for member in listed if member.isfile()}
    for member in listed:
        # tar stores the second name of a file as a link to the first.
        if member.islnk() or member.issym():
            start = "" if member.islnk() else posixpath.dirname(member.name)
            target = PurePosixPath(posixpath.normpath(posixpath.join(start, member.linkname)))
            members.setdefault(PurePosixPath(member.name), members.get(target, member))
    return members


def _check_end(archive: tarfile.TarFile) -> None:
    """Raise TarError unless the archive goes on to its end: tarfile takes the first broken header for the end."""
    stream = archive.fileobj
    assert stream is not None
    stream.seek(archive.offset)
    if stream.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
        raise tarfile.ReadError(f"it is cut off or broken at byte {archive.offset} (unpacked)")
    while stream.read(_CHUNK_BYTES):  # gzip compares its checksum at the end
        pass


def _read_file(folder: Path, name: PurePosixPath) -> bytes:
    try:
        _check_size((folder / name).stat().st_size, folder, name)
        return (folder / name).read_bytes()
    except OSError as error:
        raise InputError(f"data '{folder}': '{name}' cannot be read: {error.strerror or error}") from error


def _read_member(
    path: Path, archive: tarfile.TarFile, members: dict[PurePosixPath, tarfile.TarInfo], name: PurePosixPath
) -> bytes:
    if name not in members:
        raise InputError(f"data '{path}': '{name}' cannot be read: no such file")
    _check_size(members[name].size, path, name)
    if not members[name].isfile():
        raise InputError(f"data '{path}': '{name}' is a link to '{members[name].linkname}', which is no file in it")
    with _damage_named(path):
        stream = archive.extractfile(members[name])
        assert stream is not None
        return stream.read()


def _check_size(size_bytes: int, path: Path, name: PurePosixPath) -> None:
    if size_bytes > _MAX_FILE_BYTES:
        raise InputError(f"data '{path}': '{name}' has {size_bytes} bytes: too large for an image")


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise InputError(f"data '{path}' is a damaged archive: {error}") from error
