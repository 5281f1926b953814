"""Training code: nets, data sets, recipes, the training loop, evaluation, CLIP and distillation."""

import edgekit.device  # noqa: F401 - limits OpenCV before a module imports it
