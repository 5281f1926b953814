"""The sinks of `--save`: the frames with boxes and labels drawn in, as a video in one or more files, or as pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from edgekit.device.annotate import Shot
from edgekit.device.detections import FrameResult
from edgekit.device.frame import Frame, presentation_time_s
from edgekit.device.imaging import IMAGE_SUFFIXES, opencv_text, read_image, resize
from edgekit.device.sinks.context import RunContext
from edgekit.device.sinks.disk_reserve import VIDEO
from edgekit.device.sinks.file_series import FileSeries, require_suffix
from edgekit.device.sinks.mp4 import H264File, require_pyav
from edgekit.device.sinks.writer import Each, Writer, WriterRules
from edgekit.errors import InputError, StorageError
from edgekit.files import real_path, write_atomic
from edgekit.preprocess import ImageU8

# For sources without a frame rate.
_STILLS_FPS = 5.0
_CAMERA_FPS = 15.0
# Few frames wait, because they are large.
_MOST_FRAMES = 3
# OpenCV writes the other formats that it reads; these become PNG.
_NOT_WRITTEN = (".gif", ".pgm")
_JPEG_QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 92]


class VideoSink(Writer[Shot]):
    """Encodes each frame. A file has the size of its first frame, or of the largest picture of a folder; frames of
    other sizes are fitted into it.
    """

    def __init__(self, target: Path, run: RunContext) -> None:
        """Prepare to write the .mp4 file `target`; images without a frame rate are shown for 0.2 s each.

        Raises:
            InputError: `target` does not end in .mp4, or PyAV is missing.
        """
        require_suffix(target, ".mp4", "video")
        require_pyav()
        source = run.source
        self._hidden = run.blur()
        self._fps = source.fps or (_CAMERA_FPS if source.live else _STILLS_FPS)
        self._time_s = presentation_time_s(source, _STILLS_FPS)
        self._size_wh = _largest_wh(getattr(source, "paths", ()))  # only a source of image files has `paths`
        rules = WriterRules(
            what=f"recording to '{target}'",
            most=_MOST_FRAMES,
            slow="encoder or disk too slow",
            reserve=run.reserve(target, VIDEO),
        )
        files = FileSeries(target, run.rules.rotation, self._open_file, run.say)
        super().__init__(files, rules, run.account("save"), run.shutdown, run.notify, threaded=source.live)

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Append the frame."""
        # Not in the thread, because the faces of dropped frames count too.
        self.put(Shot(frame, result, self._hidden(frame, result)))

    def _open_file(self, path: Path, shot: Shot) -> _DrawnVideo:
        return _DrawnVideo(path, even_size(self._size_wh or shot.frame.size_wh), self._fps, self._time_s)


class _DrawnVideo(H264File):
    def __init__(self, path: Path, size_wh: tuple[int, int], fps: float, time_s: Callable[[Frame], float]) -> None:
        super().__init__(path, size_wh, fps)
        self._size_wh = size_wh
        self._time_s = time_s

    def write(self, items: Sequence[Shot]) -> int:
        """Append frames."""
        return sum(self.append(fitted(shot.drawn(), self._size_wh), self._time_s(shot.frame)) for shot in items)


class PictureSink(Writer[tuple[Path, ImageU8]]):
    """Writes an annotated copy of each image of the source, of its size; files of the source are never overwritten."""

    def __init__(self, target: Path, run: RunContext) -> None:
        """Prepare to write.

        Args:
            target: An image file for a single image, or a folder, in which each image keeps its name. The second image
                called cat.jpg becomes cat-2.jpg, or cat-3.jpg if this run has written an image called cat-2.jpg.
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
        self._hidden = run.blur()
        self._written: set[Path] = set()  # by this run, see `_path`
        # All of them: an image may have the name that an earlier one of another folder gets here.
        self._originals = {real_path(path) for path in getattr(source, "paths", ())}
        # No picture waits, because there is no thread.
        rules = WriterRules(what=f"saving to '{target}'", most=1, slow="disk too slow")
        account = run.account("save")
        super().__init__(Each(_write_picture), rules, account, run.shutdown, run.notify, threaded=False)

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
        self.put((path, Shot(frame, result, self._hidden(frame, result)).drawn()))

    def _path(self, frame: Frame) -> Path:
        """Return the file for a frame; in a folder one that was not written yet."""
        if not self._is_folder:
            return _writable_name(self._place)
        name = Path(frame.file or f"{frame.sequence:06d}.png")
        path = _writable_name(self._place / name.name)
        number = 1  # the first repeated name gets 2
        while path in self._written:
            number += 1
            path = _writable_name(self._place / f"{name.stem}-{number}{name.suffix}")
        self._written.add(path)
        return path


def _write_picture(picture: tuple[Path, ImageU8]) -> None:
    path, image_bgr = picture
    encoded, data = cv2.imencode(path.suffix, image_bgr, _JPEG_QUALITY)
    if not encoded:
        raise StorageError(f"cannot write '{path}': OpenCV does not encode {path.suffix}")
    write_atomic(path, data.tobytes())


def _writable_name(path: Path) -> Path:
    """Return a path, with .png appended if OpenCV does not write its format."""
    return path.with_name(f"{path.name}.png") if path.suffix.lower() in _NOT_WRITTEN else path


def _largest_wh(paths: Sequence[Path]) -> tuple[int, int] | None:
    """Return the size of a video of these image files: that of the file with the most pixels.

    None for a single file, whose frame determines the size, and for no files.
    """
    if len(paths) < 2:
        return None
    sizes = {}
    for path in paths:
        # At an eighth of the size, because only the largest is needed exactly.
        reduced = cv2.imread(opencv_text(str(path)), cv2.IMREAD_REDUCED_GRAYSCALE_8)
        if reduced is not None:
            sizes[path] = reduced.size
    if not sizes:
        return None
    height, width = read_image(max(sizes, key=lambda path: sizes[path])).shape[:2]
    return width, height


def even_size(size_wh: tuple[int, int]) -> tuple[int, int]:
    """Return width and height, each even, as the encoders need them."""
    width, height = size_wh
    return width + width % 2, height + height % 2


def fitted(image: ImageU8, size_wh: tuple[int, int]) -> ImageU8:
    """Return an image (H, W, 3) as a frame of a video of this size: scaled to fit and centred on black.

    The size of a video is even. So an image of an odd size is not scaled, but gets one black row or column.
    """
    width, height = size_wh
    image_h, image_w = image.shape[:2]
    if (image_w, image_h) == size_wh:
        return image
    if width - image_w not in (0, 1) or height - image_h not in (0, 1):
        scale = min(width / image_w, height / image_h)
        image_w, image_h = max(1, round(image_w * scale)), max(1, round(image_h * scale))
        image = resize(image, (image_w, image_h))
    canvas = np.zeros((height, width, 3), np.uint8)
    top, left = (height - image_h) // 2, (width - image_w) // 2
    canvas[top : top + image_h, left : left + image_w] = image
    return canvas
