"""The Pi-side runtime: frame sources, face detectors, classifier, pipeline, sinks and meters."""

import os

# OpenCV and its FFmpeg print their own complaints on stderr unless told otherwise before they are loaded; edgekit's
# errors say what matters. A user who wants theirs sets these variables.
os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
# A picture of a few hundred kilobytes can claim gigapixels; 2^27 of them are 400 MB once decoded.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(1 << 27))
