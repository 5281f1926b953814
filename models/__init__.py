"""Training code: nets, data sets, recipes, the training loop, evaluation, CLIP and distillation."""
