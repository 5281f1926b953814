"""Results of single encoded pictures, beside a stream and with nets of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from edgekit.device.detections import FrameResult
from edgekit.device.engines.classifier import Classifier
from edgekit.device.frame import Frame
from edgekit.device.imaging import as_frame, check_picture_size, decode_image
from edgekit.device.pipeline.loop import recognise
from edgekit.device.stage_timer import StageTimer
from edgekit.device.tracking.localizer import Localizer
from edgekit.errors import InputError

# Decoded, such a picture takes 75 MB, or 175 MB if it has an alpha channel.
_MAX_PIXELS = 25_000_000


class PictureRecogniser:
    """Returns the result of a picture, see `__call__`; the nets are loaded for the first one, and for another model.

    Calls from several threads wait for each other. The stream's nets are not used, so that its frames do not wait.
    """

    def __init__(
        self, current: Callable[[], Classifier], make_nets: Callable[[Classifier], tuple[Localizer, Classifier]]
    ) -> None:
        """Use the model of the stream, which `current` returns; `make_nets` returns other nets for it."""
        self._current = current
        self._make_nets = make_nets
        self._nets: tuple[Localizer, Classifier] | None = None
        self._made_for: Classifier | None = None
        self._lock = threading.Lock()
        self._count = 0

    def __call__(self, data: bytes) -> FrameResult:
        """Return the result of a JPEG or PNG picture.

        Raises:
            InputError: It is not such a picture, has more than 25 megapixels, or cannot be decoded; or the run ends.
        """
        name = "in the request"
        check_picture_size(data, name, _MAX_PIXELS)
        with self._lock:
            captured_s, wall_s = time.monotonic(), time.time()
            frame = Frame(self._count, captured_s, wall_s, as_frame(decode_image(data, name)))
            self._count += 1
            try:
                current = self._current()
                if self._nets is None or self._made_for is not current:
                    self._nets, self._made_for = self._make_nets(current), current
                return recognise(frame, *self._nets, StageTimer())
            except KeyboardInterrupt as error:  # a signal has cancelled the inference
                raise InputError("the run ends") from error
