"""The Pi-side runtime: frame sources, face detectors, classifier, pipeline, sinks and meters."""

import os

# OpenCV and its FFmpeg print their own complaints on stderr unless told otherwise before they are loaded; edgekit's
# errors say what matters. A user who wants theirs sets these variables.
os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
# A picture of a few hundred kilobytes can claim gigapixels; 2^27 of them are 400 MB once decoded.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(1 << 27))
# onnxruntime's own builds send usage data to their maker from 1.32 on; it looks at this when it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
