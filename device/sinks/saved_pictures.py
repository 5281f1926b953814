"""Results as pictures: one annotated image file for each image of the source, at its own size."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2

from edgekit.device.annotate import draw_faces
from edgekit.device.blur import hide_boxes
from edgekit.device.detections import FrameResult
from edgekit.device.frame import Frame
from edgekit.device.imaging import IMAGE_SUFFIXES
from edgekit.device.sinks.context import RunContext
from edgekit.device.sinks.writer import Target, Writer, WriterRules
from edgekit.errors import InputError, StorageError
from edgekit.files import real_path, write_atomic
from edgekit.preprocess import ImageU8

# OpenCV writes the other formats that it reads; these become PNG.
_NOT_WRITTEN = (".gif", ".pgm")
_JPEG_QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 92]


@dataclass(frozen=True, eq=False)
class _Picture:
    path: Path
    image_bgr: ImageU8


class PictureSink(Writer[_Picture]):
    """Writes an annotated copy of each image of the source; files of the source are never overwritten."""

    def __init__(self, target: Path, run: RunContext) -> None:
        """Prepare to write.

        Args:
            target: An image file for a single image, or a folder, in which each image keeps its name. The second image
                of a name gets the number 2, and so on; a number that makes the name of another image is left out.
            run: The run.

        Raises:
            InputError: The source is not of images, or has several of them and `target` is a file.
        """
        source = run.source
        if source.live or source.fps is not None:
            raise InputError(f"'{target}' is for images, and source '{source.name}' is a video: name a file .mp4")
        self._is_folder = target.suffix.lower() not in IMAGE_SUFFIXES or target.is_dir()
        if not self._is_folder and source.frame_count != 1:
            raise InputError(
                f"'{target}' is one image, and source '{source.name}' has {source.frame_count or 'several'}: "
                "name a folder"
            )
        self._place = target
        self._blurs = run.blur() is not None
        self._written: set[Path] = set()
        # All of them: an image may have the name that an earlier one of another folder gets here.
        self._originals = {real_path(path) for path in getattr(source, "paths", ())}
        rules = WriterRules(what=f"saving to '{target}'", most=1, slow="disk too slow")
        super().__init__(_Files(), rules, run.account("save"), run.shutdown, run.notify, threaded=False)

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Write the image with its faces drawn in, or blurred.

        Raises:
            InputError: The file would overwrite one of the source.
            StorageError: The file cannot be written.
        """
        path = self._path(frame)
        if frame.file is not None:  # a source of another package may have no `paths`
            self._originals.add(real_path(Path(frame.file)))
        if real_path(path) in self._originals:
            raise InputError(f"'{path}' is an image of the source and would be overwritten: name another folder")
        image = frame.image_bgr
        if self._blurs:
            image = hide_boxes(image, [face.xyxy for face in result.faces])
        self.put(_Picture(path, draw_faces(image, result.faces)))

    def _path(self, frame: Frame) -> Path:
        if not self._is_folder:
            return _writable_name(self._place)
        name = Path(frame.file or f"{frame.sequence:06d}.png")
        numbered = (f"{name.stem}-{number}{name.suffix}" for number in itertools.count(2))
        paths = (_writable_name(self._place / each) for each in itertools.chain([name.name], numbered))
        path = next(path for path in paths if path not in self._written)
        self._written.add(path)
        return path


class _Files(Target[_Picture]):
    """Target of a `PictureSink`."""

    def write(self, items: Sequence[_Picture]) -> int:
        """Encode and write images."""
        for picture in items:
            encoded, data = cv2.imencode(picture.path.suffix, picture.image_bgr, _JPEG_QUALITY)
            if not encoded:
                raise StorageError(f"cannot write '{picture.path}': OpenCV does not encode {picture.path.suffix}")
            write_atomic(picture.path, data.tobytes())
        return len(items)


def _writable_name(path: Path) -> Path:
    return path.with_name(f"{path.name}.png") if path.suffix.lower() in _NOT_WRITTEN else path
