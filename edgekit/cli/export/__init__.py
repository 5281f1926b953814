"""Options and helpers of `edgekit export`."""
