"""Options and helpers of `edgekit train` and `edgekit distill`."""
