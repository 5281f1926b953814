"""The display of a running training, and the output of `edgekit eval`."""
