"""The runtime on the board: frame sources, face detection and tracking, classifier, pipeline, sinks and health."""

import os

# OpenCV and its FFmpeg print their own messages on stderr unless these variables are set before the import;
# edgekit's errors contain what is relevant. A value that the user has set stays.
os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
# An image file of a few hundred kilobytes can claim gigapixels; 2^27 pixels are 400 MB after decoding.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(1 << 27))
