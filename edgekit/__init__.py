"""edgekit takes a small-input classifier from training to a Raspberry Pi."""

import os as _os

# onnxruntime's own builds send usage data to their maker from 1.32 on; it looks at this when it is loaded, in this
# process or in one that this process starts.
_os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
