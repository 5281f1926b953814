"""Image files and label lists of a data set in a folder or a .tar archive, read one at a time with a size limit."""

from __future__ import annotations

import lzma
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from edgekit.device.imaging import IMAGE_SUFFIXES, report_unread
from edgekit.errors import InputError
from edgekit.models.callbacks import Notify, ignore_message
from edgekit.models.data.groups import TABLES as GROUP_TABLES
from edgekit.text import counted, one_line

ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz")
# Label files of RAF-DB: the official one (with its misspelling), and those on Kaggle.
LABEL_LISTS = ("list_patition_label.txt", "list_partition_label.txt")
LABEL_TABLES = ("train_labels.csv", "test_labels.csv")
# Label and person of each photograph, see `edgekit.models.data.photos`.
PHOTO_TABLE = "photos.csv"
# One row for each crop, see `edgekit.models.data.crop`.
CROP_TABLE = "crops.csv"

# Suffixes of images that are not read: JPEG files under other suffixes, and other formats.
_OTHER_IMAGES = re.compile(
    r"\.(jfif|jif|jpe|jp2|jxl|apng|pbm|pnm|pam|dib|tga|pcx|ico|svg|psd|xcf|exr|hdr|dng|raw|cr2|cr3|nef|arw|orf|rw2)"
)
_MAX_FILE_BYTES = 64 << 20
# Names are stored in an array of fixed width, but a .tar can contain names of any length.
_MAX_NAME_CHARACTERS = 500
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Files:
    """Images and label lists; `names` have the fastest order to read, `read` returns bytes or raises InputError.

    `empty_folders` contain neither images nor label lists, at any depth.
    """

    names: tuple[PurePosixPath, ...]
    read: Callable[[PurePosixPath], bytes]
    empty_folders: tuple[PurePosixPath, ...] = ()

    @property
    def images(self) -> tuple[PurePosixPath, ...]:
        """The names of the image files."""
        return tuple(name for name in self.names if name.suffix.lower() in IMAGE_SUFFIXES)


@dataclass(frozen=True)
class ImageEntry:
    """One image: path in `Files`, path within the data set, split, class, and group (such as a person), if any."""

    path: PurePosixPath
    name: str
    split: str
    class_name: str
    group: str = ""


def report_left_out(names: Iterable[PurePosixPath], notify: Notify) -> None:
    """Call `notify` with a line for HEIC and AVIF images, and one for other images whose suffix is not read."""
    names = [name for name in names if not is_hidden(name)]
    report_unread(names, notify)
    others = [name for name in names if _OTHER_IMAGES.fullmatch(name.suffix.lower())]
    if others:
        suffixes = ", ".join(sorted({name.suffix.lower() for name in others}))
        found = counted(len(others), f"image with the suffix {suffixes} is", f"images with the suffix {suffixes} are")
        notify(f"{found} not read, such as '{others[0]}': rename JPEG files to .jpg, convert others to JPEG or PNG")


def is_hidden(name: PurePosixPath) -> bool:
    """Return whether a file is to be ignored: macOS adds metadata files, programs keep copies in hidden folders."""
    return "__MACOSX" in name.parts or any(part.startswith(".") and part != ".." for part in name.parts)


@contextmanager
def open_files(path: Path, notify: Notify = ignore_message) -> Iterator[Files]:
    """Open a folder or an archive (.tar, .tar.gz, .tgz); `notify` gets lines about images and folders not read.

    Raises:
        InputError: The archive is damaged, or a path in it is too long.
    """
    if path.is_dir():
        yield _files_in_folder(path, notify)
        return
    # Members are read into memory and never extracted, so their names cannot point outside a folder.
    with _damage_reported(path):
        archive = tarfile.open(path)  # noqa: SIM115 - closed below
    with archive:
        # Not around the `yield`: errors in the caller's block are not those of the archive.
        with _damage_reported(path):
            members = _members(archive)
        names = _wanted(tuple(members), path, notify)
        folders = [PurePosixPath(member.name) for member in archive.getmembers() if member.isdir()]
        read = partial(_read_member, path, archive, members)  # takes the name of the member
        yield Files(names, read, empty_folders=_empty(folders, names))


def _files_in_folder(path: Path, notify: Notify) -> Files:
    """Return the images and label lists in a folder."""
    found = _files_and_folders(path, notify)
    folders = [PurePosixPath(each.relative_to(path).as_posix()) for each in found if each.is_dir()]
    # Broken links are included, so that reading them raises an error.
    files = [each for each in found if each.is_file() or (each.is_symlink() and not each.exists())]
    names = _wanted(tuple(PurePosixPath(file.relative_to(path).as_posix()) for file in files), path, notify)
    return Files(names, read=partial(_read_file, path), empty_folders=_empty(folders, names))


def _files_and_folders(path: Path, notify: Notify) -> list[Path]:
    """Return all files and folders in a folder, sorted, without those in hidden folders."""
    found: list[Path] = []
    ignored: set[Path] = set()
    # os.walk does not follow links to folders, and calls `onerror` for a folder that it cannot read.
    for folder, subfolders, files in os.walk(path, onerror=lambda error: ignored.add(Path(error.filename))):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]  # os.walk visits those that are left
        folder_paths = [Path(folder, name) for name in subfolders]
        ignored.update(each for each in folder_paths if each.is_symlink())
        found += [*folder_paths, *(Path(folder, name) for name in files)]
    if ignored:
        names = ", ".join(str(each.relative_to(path)) for each in sorted(ignored))
        notify(f"folders that are links or cannot be read are ignored: {names}")
    return sorted(set(found) - ignored)


def _empty(folders: Iterable[PurePosixPath], names: Iterable[PurePosixPath]) -> tuple[PurePosixPath, ...]:
    """Return the folders that contain none of the files `names`, at any depth; hidden folders are left out."""
    filled = {folder for name in names for folder in name.parents}
    hidden = (".", "__MACOSX")
    return tuple(folder for folder in folders if folder not in filled and not folder.name.startswith(hidden))


def _wanted(names: tuple[PurePosixPath, ...], path: Path, notify: Notify) -> tuple[PurePosixPath, ...]:
    """Return the images and the label lists among the files; report the images that are not read."""
    report_left_out(names, notify)
    lists = (*LABEL_LISTS, *LABEL_TABLES, *GROUP_TABLES)
    chosen = tuple(
        name
        for name in names
        if (name.suffix.lower() in IMAGE_SUFFIXES or name.name.lower() in lists) and not is_hidden(name)
    )
    longest = max((len(str(name)) for name in chosen), default=0)
    if longest > _MAX_NAME_CHARACTERS:
        raise InputError(f"data '{path}': a file's path has {longest} characters: at most {_MAX_NAME_CHARACTERS}")
    return chosen


def _members(archive: tarfile.TarFile) -> dict[PurePosixPath, tarfile.TarInfo]:
    """Return the files of a complete archive, and links: tar stores a second name of a file as a link to the first."""
    listed = archive.getmembers()
    _check_end(archive)
    return {PurePosixPath(member.name): member for member in listed if not member.isdir()}


def _check_end(archive: tarfile.TarFile) -> None:
    """Raise TarError if the archive is truncated: tarfile treats the first broken header as the end.

    A complete archive has blocks of zeros at the offset at which tarfile stopped.
    """
    stream = archive.fileobj
    assert stream is not None
    stream.seek(archive.offset)
    if stream.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
        raise tarfile.ReadError(f"it is cut off or broken at byte {archive.offset} (unpacked)")
    while stream.read(_CHUNK_BYTES):  # gzip verifies its checksum at the end
        pass


def _read_file(folder: Path, name: PurePosixPath) -> bytes:
    """Return the content of a file in a folder."""
    try:
        _check_size((folder / name).stat().st_size, folder, name)
        return (folder / name).read_bytes()
    except OSError as error:
        raise InputError(f"data '{folder}': '{name}' cannot be read: {error.strerror or error}") from error


def _read_member(
    path: Path, archive: tarfile.TarFile, members: dict[PurePosixPath, tarfile.TarInfo], name: PurePosixPath
) -> bytes:
    """Return the content of a file in an archive, or of the file that a link in it leads to."""
    if name not in members:
        raise InputError(f"data '{path}': '{name}' cannot be read: no such file")
    _check_size(members[name].size, path, name)
    with _damage_reported(path):
        stream = _linked(archive, members[name])
        if stream is None:
            raise InputError(f"data '{path}': '{name}' is a link to '{members[name].linkname}', which is no file in it")
        # Checked again by its content, because the stated size of a link is 0; one byte too many is enough.
        content = stream.read(_MAX_FILE_BYTES + 1)
    _check_size(len(content), path, name)
    return content


def _linked(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes] | None:
    """Return the content of a file or of the end of a chain of links; None if the chain leads to no file."""
    try:
        return archive.extractfile(member)
    except (KeyError, RecursionError):
        return None


def _check_size(size_bytes: int, path: Path, name: PurePosixPath) -> None:
    """Check the size of the file `name` in the data at `path`."""
    if size_bytes > _MAX_FILE_BYTES:
        raise InputError(f"data '{path}': '{name}' has {size_bytes} bytes: the limit is {_MAX_FILE_BYTES >> 20} MiB")


@contextmanager
def _damage_reported(path: Path) -> Iterator[None]:
    """Raise the errors of a damaged archive as `InputError`."""
    try:
        yield
    # ValueError: a number in a header has other characters than digits.
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError, ValueError) as error:
        raise InputError(f"data '{path}' is a damaged archive: {one_line(str(error))}") from error
