"""Options of `edgekit train` and `edgekit distill`, and output of `edgekit eval`."""
