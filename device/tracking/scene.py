"""Cuts of a film: the frames in which another scene begins, so that no track continues from one scene to the next."""

from __future__ import annotations

import cv2
import numpy as np

from edgekit.preprocess import FloatArray, ImageU8

COARSE_WH = (32, 24)
# Mean difference of the coarse images of two scenes, in standard deviations of their pixels, from which a frame begins
# another scene. Successive frames of the shared clips differ by at most 0.15, with flickering light by 0.4; of pairs of
# photographs, 99 % differ by more than 0.56.
_OTHER_SCENE = 0.55
# Smallest standard deviation of a coarse image, in gray levels: a nearly black frame belongs to no scene.
_LEAST_CONTRAST = 4.0
# Frames farther apart differ by the motion of a camera, too: those of the shared clips by 0.8 after 0.4 s.
_SHORT_STEP_S = 0.15
_OTHER_SCENE_LATER = 0.9


def coarse_image(luma: ImageU8) -> FloatArray:
    """Return a frame's luma, uint8 (h, w), as float32 (24, 32) in gray levels."""
    return np.asarray(cv2.resize(luma, COARSE_WH, interpolation=cv2.INTER_AREA), np.float32)


class SceneCuts:
    """Finds the cuts of a film in its successive frames."""

    def __init__(self) -> None:
        self._scene: FloatArray | None = None
        self._latest_s = 0.0

    def is_cut(self, coarse: FloatArray, time_s: float) -> bool:
        """Return whether another scene begins with the next frame, `coarse` of `coarse_image`.

        Exposure and contrast are no change. Black frames between two scenes are skipped.
        """
        before, step_s = self._scene, time_s - self._latest_s
        self._latest_s = time_s
        scene = coarse - coarse.mean()
        contrast = float(scene.std())
        if contrast < _LEAST_CONTRAST:
            return False
        self._scene = scene / np.float32(contrast)
        limit = _OTHER_SCENE if step_s <= _SHORT_STEP_S else _OTHER_SCENE_LATER
        return before is not None and float(np.abs(before - self._scene).mean()) >= limit
