"""Results as pictures: one annotated image file for each image of the source, at its own size."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2

from edgekit.device.accounting import Account, loss_reason
from edgekit.device.annotate import Draw, draw_faces
from edgekit.device.blur import hide_boxes
from edgekit.device.detections import FrameResult
from edgekit.device.frame import Frame, Source
from edgekit.device.imaging import IMAGE_SUFFIXES
from edgekit.device.sink import Sink
from edgekit.errors import InputError, StorageError
from edgekit.files import real_path, write_atomic

# OpenCV writes the other formats that it reads; these become PNG.
_NOT_WRITTEN = (".gif", ".pgm")
_JPEG_QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 92]


def is_for_pictures(target: Path) -> bool:
    """Return whether `--save` names an image file or a folder, rather than a video."""
    return target.suffix.lower() in IMAGE_SUFFIXES or not target.suffix or target.is_dir()


class PictureSink(Sink):
    """Writes an annotated copy of each image of the source; files of the source are never overwritten."""

    def __init__(self, target: Path, source: Source, blur_faces: bool = False, draw: Draw = draw_faces) -> None:
        """Prepare to write.

        Args:
            target: An image file for a single image, or a folder, in which each image keeps its name. The second image
                of a name gets the number 2, and so on; a number that makes the name of another image is left out.
            source: The source of the images.
            blur_faces: Whether to make the faces unrecognisable.
            draw: Draws the faces into an image.

        Raises:
            InputError: The source is not of images, or has several of them and `target` is a file.
        """
        if source.live or source.fps is not None:
            raise InputError(f"'{target}' is for images, and source '{source.name}' is a video: name a file .mp4")
        self._is_folder = target.suffix.lower() not in IMAGE_SUFFIXES or target.is_dir()
        if not self._is_folder and source.frame_count != 1:
            raise InputError(
                f"'{target}' is one image, and source '{source.name}' has {source.frame_count or 'several'}: "
                "name a folder"
            )
        self._target = target
        self._blur_faces = blur_faces
        self._draw = draw
        self._names: Counter[str] = Counter()
        self._written: set[Path] = set()
        # All of them: an image may have the name that an earlier one of another folder gets here.
        self._originals = {real_path(path) for path in getattr(source, "paths", ())}
        self._account = Account("save")
        self.accounts = (self._account,)

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Write the image with its faces drawn in, or blurred.

        Raises:
            InputError: The file would overwrite one of the source.
            StorageError: The file cannot be written.
        """
        self._account.produce()
        try:
            self._save(frame, result)
        except BaseException as error:
            self._account.drop(loss_reason(error))
            raise
        self._account.write()

    def _save(self, frame: Frame, result: FrameResult) -> None:
        target = self._path(frame)
        if frame.file is not None:  # a source of another package may have no `paths`
            self._originals.add(real_path(Path(frame.file)))
        if real_path(target) in self._originals:
            raise InputError(f"'{target}' is an image of the source and would be overwritten: name another folder")
        image = frame.image_bgr
        if self._blur_faces:
            image = hide_boxes(image, [face.xyxy for face in result.faces])
        encoded, data = cv2.imencode(target.suffix, self._draw(image, result.faces), _JPEG_QUALITY)
        if not encoded:
            raise StorageError(f"cannot write '{target}': OpenCV {cv2.__version__} does not encode {target.suffix}")
        write_atomic(target, data.tobytes())

    def _path(self, frame: Frame) -> Path:
        if not self._is_folder:
            return _writable_name(self._target)
        name = Path(frame.file or f"{frame.sequence:06d}.png")
        while True:
            self._names[name.name] += 1
            number = self._names[name.name]
            target = self._target / (name.name if number == 1 else f"{name.stem}-{number}{name.suffix}")
            target = _writable_name(target)
            if target not in self._written:
                self._written.add(target)
                return target


def _writable_name(path: Path) -> Path:
    return path.with_name(f"{path.name}.png") if path.suffix.lower() in _NOT_WRITTEN else path
