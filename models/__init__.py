"""Training code: nets, data sets, recipes and the training loop."""
