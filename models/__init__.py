"""Training code: nets, data sets, recipes, the training loop, evaluation, CLIP and distillation."""

import os

import edgekit.device  # noqa: F401 - limits OpenCV before a module imports it

# Idle threads of torch sleep instead of spinning. Spinning threads make a training several times slower if another
# program uses one of the cores, and hardly faster if not. OpenMP reads the variable once, when torch loads it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
